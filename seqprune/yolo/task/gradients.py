"""Gradients of the detection loss."""

from __future__ import annotations

import torch
from torch import nn

from seqprune.errors import DataError, ModelError
from seqprune.observe.batch import LabelledImages
from seqprune.observe.inputs import as_input
from seqprune.yolo.files.contained import one_line
from seqprune.yolo.task.loss import as_ultralytics, with_gains


def loss_gradients(model: nn.Module, images: LabelledImages) -> dict[str, torch.Tensor]:
    """Gradients of Ultralytics' own loss, a mean over images, on a copy; the model stays as it is.

    In inference mode: BatchNorm takes its running statistics and does not update them, so that the gradient is that of
    the function that is deployed.

    Args:
        model: A detector as :func:`seqprune.yolo.files.load.load` returns it.
        images: Labelled images.

    Returns:
        By parameter path, on the CPU in the parameter's type; zeros for parameters the loss does not depend on.

    Raises:
        DataError: There are no images.
        ModelError: The loss cannot be taken of this model.
    """
    copy = with_gains(model)
    for parameter in copy.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    count = 0
    with torch.enable_grad():
        for batch in images:
            count += len(batch.images)
            try:
                inputs = as_input(batch.images, copy)
                loss, _ = copy.loss(as_ultralytics(batch, inputs), copy(inputs))
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
