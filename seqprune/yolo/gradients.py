"""Gradients of the detection loss."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import nn
from ultralytics.cfg import get_cfg

from seqprune.errors import DataError, ModelError
from seqprune.observe.batch import Batch, LabelledImages, as_input
from seqprune.yolo.contained import one_line
from seqprune.yolo.networks import forget_inputs


def loss_gradients(model: nn.Module, images: LabelledImages) -> dict[str, torch.Tensor]:
    """Gradients of Ultralytics' own loss, a mean over images, on a copy; the model stays as it is.

    In inference mode: BatchNorm takes its running statistics and does not update them, so that the gradient is that of
    the function that is deployed.

    Args:
        model: A detector as :func:`seqprune.yolo.load.load` returns it.
        images: Labelled images.

    Returns:
        By parameter path, on the CPU in the parameter's type; zeros for parameters the loss does not depend on.

    Raises:
        DataError: There are no images.
        ModelError: The loss cannot be taken of this model.
    """
    copy: Any = deepcopy(model).eval()
    forget_inputs(copy)
    given = getattr(copy, "args", None)
    known = vars(get_cfg())
    gains = given if isinstance(given, dict) else vars(given) if given is not None else {}
    copy.args = get_cfg(overrides={name: value for name, value in gains.items() if name in known})
    for parameter in copy.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    count = 0
    with torch.enable_grad():
        for batch in images:
            count += len(batch.images)
            try:
                loss, _ = copy.loss(_labels(batch, next(copy.parameters()).device), copy(as_input(batch.images, copy)))
                loss.sum().backward()  # the loss is a sum over images, so gradients add up to a sum too
            except (RuntimeError, AttributeError, KeyError, TypeError) as error:
                raise ModelError(
                    f"the detection loss cannot be taken of this model ({one_line(error)}); is it a detector of "
                    "Ultralytics? choose a criterion that needs no gradients"
                ) from error
    if not count:
        raise DataError("there are no images to take gradients from: give at least one")
    found = {}
    for name, parameter in copy.named_parameters():
        gradient = parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
        found[name] = gradient.detach().cpu() / count
    return found


def _labels(batch: Batch, device: torch.device) -> dict[str, torch.Tensor]:
    """What Ultralytics' loss reads of a batch: boxes ``xywh`` in [0, 1]."""
    height, width = batch.images.shape[-2:]
    scale = torch.tensor([width, height], dtype=torch.float32)
    corner, opposite = batch.boxes[:, :2] / scale, batch.boxes[:, 2:] / scale
    return {
        "batch_idx": batch.image_index.float().to(device),
        "cls": batch.classes.float()[:, None].to(device),
        "bboxes": torch.cat(((corner + opposite) / 2, opposite - corner), 1).to(device),
        "img": batch.images,
    }
