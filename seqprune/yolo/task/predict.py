"""Predicted boxes, and classes of whole images."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch import nn
from ultralytics.utils import nms, ops

from seqprune.yolo.files.networks import by_queries

# Ultralytics' suppression uses torchvision's kernel only when somebody has already imported it.
import_module("torchvision")

# Ultralytics drops the remaining images of a batch when suppression takes longer than 2 s + this per image.
UNLIMITED_SECONDS = 3600.0


def predict(
    model: nn.Module, images: torch.Tensor, conf: float = 0.25, iou: float = 0.7, max_det: int = 300
) -> list[torch.Tensor]:
    """Run a network that finds boxes, be it beside other things, and suppress overlapping ones; or one that classifies.

    Args:
        model: In eval mode; heads that need no suppression (end to end) are only filtered.
        images: ``[B, 3, H, W]`` floating point in [0, 1], RGB, on the model's device; H and W multiples of
            the stride.
        conf: Least confidence.
        iou: Overlap above which the less confident box of a class is dropped.
        max_det: Most boxes per image.

    Returns:
        For each image ``[n, 6]``: ``x1 y1 x2 y2`` in pixels of ``images``, confidence, class; most confident
        first. Of an oriented box, the upright one around it. Of an image that is classified ``[1, 2]``: confidence and
        most probable class.
    """
    task = getattr(model, "task", "detect")
    rotated = task == "obb"
    with torch.no_grad():  # not inference mode: its tensors would stay behind in the head's anchors
        raw: Any = model(images)
        if by_queries(model):
            return _of_queries(raw[1], images, conf, max_det)
        while not isinstance(raw, torch.Tensor):  # the boxes come first, whatever else there is
            raw = raw[0]
        if task == "classify":
            confidence, kind = raw.float().max(1)
            return list(torch.stack((confidence, kind.float()), 1)[:, None])
        found: list[torch.Tensor] = nms.non_max_suppression(
            raw,
            conf,
            iou,
            max_det=max_det,
            nc=len(getattr(model, "names", ())),
            max_time_img=UNLIMITED_SECONDS,
            rotated=rotated,
            end2end=bool(getattr(model, "end2end", False)),
        )
    return [_upright(boxes) if rotated else boxes[:, :6] for boxes in found]


def _of_queries(raw: Any, images: torch.Tensor, conf: float, max_det: int) -> list[torch.Tensor]:
    """Boxes in pixels from what the decoder's last layer says of each query, the most probable class of each."""
    scores, kinds = raw[1][-1].sigmoid().max(-1)
    height, width = images.shape[-2:]
    boxes = ops.xywh2xyxy(raw[0][-1]) * raw[0].new_tensor([width, height, width, height])
    found = torch.cat((boxes, scores[..., None], kinds[..., None].to(boxes)), -1)
    ordered = (each[each[:, 4].argsort(descending=True)] for each in found)
    return [each[each[:, 4] > conf][:max_det] for each in ordered]


def _upright(found: torch.Tensor) -> torch.Tensor:
    """``[n, 7]`` of ``x y w h``, confidence, class, angle → ``[n, 6]`` with the box around the turned one."""
    corners = ops.xywhr2xyxyxyxy(torch.cat((found[:, :4], found[:, 6:7]), 1))
    return torch.cat((corners.amin(1), corners.amax(1), found[:, 4:6]), 1)
