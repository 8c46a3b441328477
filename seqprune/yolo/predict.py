"""Predicted boxes."""

from __future__ import annotations

from importlib import import_module

import torch
from torch import nn
from ultralytics.utils import nms

# Ultralytics' suppression uses torchvision's kernel only when somebody has already imported it.
import_module("torchvision")

# Ultralytics drops the remaining images of a batch when suppression takes longer than 2 s + this per image.
UNLIMITED_SECONDS = 3600.0


def predict(
    model: nn.Module, images: torch.Tensor, conf: float = 0.25, iou: float = 0.7, max_det: int = 300
) -> list[torch.Tensor]:
    """Run a detector and suppress overlapping boxes as Ultralytics does.

    Args:
        model: A detector in eval mode; heads that need no suppression (end to end) are only filtered.
        images: ``[B, 3, H, W]`` floating point in [0, 1], RGB, on the model's device; H and W multiples of
            the stride.
        conf: Least confidence.
        iou: Overlap above which the less confident box of a class is dropped.
        max_det: Most boxes per image.

    Returns:
        For each image ``[n, 6]``: ``x1 y1 x2 y2`` in pixels of ``images``, confidence, class; most confident
        first.
    """
    with torch.no_grad():  # not inference mode: its tensors would stay behind in the head's anchors
        raw = model(images)
        end2end = bool(getattr(model, "end2end", False))
        found: list[torch.Tensor] = nms.non_max_suppression(
            raw, conf, iou, max_det=max_det, max_time_img=UNLIMITED_SECONDS, end2end=end2end
        )
    return found
