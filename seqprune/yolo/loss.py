"""The loss a detector is trained with, as a measure of how well it still does on labelled images."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import nn
from ultralytics.cfg import get_cfg

from seqprune.observe.batch import Batch, LabelledImages, as_input


def detection_loss(model: nn.Module, images: LabelledImages) -> float:
    """Ultralytics' loss (boxes, classes, distances) per image, in inference mode; the model stays as it is."""
    copy: Any = deepcopy(model).eval()
    arguments = getattr(copy, "args", {})
    copy.args = get_cfg(overrides={k: v for k, v in dict(arguments).items() if k in ("box", "cls", "dfl")})
    total, count = 0.0, 0
    with torch.no_grad():
        for batch in images:
            inputs = as_input(batch.images, copy)
            loss, _ = copy.loss(_as_ultralytics(batch, inputs), copy(inputs))
            total += float(loss.sum())
            count += len(batch.images)
    return total / max(count, 1)


def _as_ultralytics(batch: Batch, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
    height, width = inputs.shape[-2:]
    scale = torch.tensor([width, height, width, height], dtype=torch.float32)
    corners = batch.boxes / scale
    centre, size = (corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]
    return {
        "img": inputs,
        "batch_idx": batch.image_index.to(inputs.device),
        "cls": batch.classes.float()[:, None].to(inputs.device),
        "bboxes": torch.cat([centre, size], 1).to(inputs.device),
    }
