"""The loss a network is trained with, as a measure of how well it still does on labelled images."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from ultralytics.cfg import get_cfg

from seqprune.errors import DataError
from seqprune.graph.copying import copied
from seqprune.observe.batch import Batch, LabelledImages
from seqprune.observe.inputs import as_input
from seqprune.yolo.files.networks import forget_inputs


def training_loss(model: nn.Module, images: LabelledImages) -> float:
    """What the model's task is trained to minimise, per image: of a detector see :func:`detection_loss`."""
    return (classification_loss if getattr(model, "task", "") == "classify" else detection_loss)(model, images)


def classification_loss(model: nn.Module, images: LabelledImages) -> float:
    """Ultralytics' loss (cross-entropy) per image, in inference mode; the model stays as it is."""
    copy: Any = copied(model).eval()
    total, count = 0.0, 0
    with torch.no_grad():
        for batch in images:
            inputs = as_input(batch.images, copy)
            loss, _ = copy.loss({"img": inputs, "cls": batch.classes.to(inputs.device)}, copy(inputs))
            total += float(loss) * len(inputs)  # a mean over the batch, where a detector's is a sum
            count += len(inputs)
    return total / max(count, 1)


def detection_loss(model: nn.Module, images: LabelledImages) -> float:
    """Ultralytics' loss (boxes, classes, distances) per image, in inference mode; the model stays as it is."""
    copy = with_gains(model)
    total, count = 0.0, 0
    with torch.no_grad():
        for batch in images:
            inputs = as_input(batch.images, copy)
            loss, _ = copy.loss(as_ultralytics(batch, inputs), copy(inputs))
            total += float(loss.sum())
            count += len(batch.images)
    return total / max(count, 1)


def with_gains(model: nn.Module) -> Any:
    """A copy in inference mode that knows the gains of its loss, its own or Ultralytics' defaults."""
    copy: Any = copied(model).eval()
    forget_inputs(copy)
    given = getattr(copy, "args", None)
    known = vars(get_cfg())
    gains = given if isinstance(given, dict) else vars(given) if given is not None else {}
    copy.args = get_cfg(overrides={name: value for name, value in gains.items() if name in known})
    return copy


def as_ultralytics(batch: Batch, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
    """What Ultralytics' loss reads of a batch, on the device of ``inputs``: boxes as ``xywh`` in [0, 1].

    Raises:
        DataError: the batch has no boxes.
    """
    if batch.boxes is None:
        raise DataError("the images have no boxes, and a detector's loss needs them: give a data set for detection")
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
