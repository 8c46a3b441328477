"""Whether a repair helps: what a network is judged by on images that were held out."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from seqprune.observe.batch import LabelledImages
from seqprune.observe.inputs import as_input
from seqprune.yolo.task.loss import training_loss
from seqprune.yolo.task.probe import (
    BOX_WEIGHT,
    LEAST,
    every_cell,
    mean_square,
    object_weights,
    one_per_cell,
    predictions,
)

BY_BOXES = ("segment", "pose", "obb")
"""Tasks of whose labels only boxes are read: their losses ask for masks, key points, angles."""


def judge_for(original: nn.Module, images: LabelledImages, classes: int) -> Callable[[nn.Module], float] | None:
    """Given a pruned network, a number that is smaller for a better one.

    How far the detections are from the unpruned network's, see :func:`distance`. Labels are not asked: where some of
    the images have none, which no file says, a network that finds nothing would be the best on these. Where the
    unpruned network is no measure, because it detects nothing on any of the images or has not one prediction for every
    cell, it is the loss per image that the task is trained with.

    Args:
        original: the unpruned network.
        images: those held out.
        classes: how many there are.

    Returns:
        ``None`` where there is neither.
    """
    asked = one_per_cell(original, images, classes)
    learnt = getattr(original, "task", "detect") not in BY_BOXES and getattr(images, "objects", True)
    if asked is not None and (not learnt or _detects(asked[0], images, classes)):
        return partial(distance, wanted=asked[0], images=images, classes=classes)
    return partial(training_loss, images=images) if learnt else None


def _detects(copy: nn.Module, images: LabelledImages, classes: int) -> bool:
    with torch.no_grad():
        found = (predictions(copy(as_input(batch.images, copy))) for batch in images)
        return any(each is not None and bool(object_weights(each, classes).any()) for each in found)


def distance(model: nn.Module, wanted: nn.Module, images: LabelledImages, classes: int) -> float:
    """How far a network's detections are from those of the network ``wanted``, per image.

    At objects of either, as :func:`seqprune.yolo.task.probe.object_weights` counts them, so that what is found where
    nothing was counts too: twice the divergence of classes, the squares of boxes by their weight, those of the rest.
    For small errors that is what the probe stands for.
    """
    copy, total, count = every_cell(model), 0.0, 0
    with torch.no_grad():
        for batch in images:
            inputs = as_input(batch.images, copy)
            found, target = predictions(copy(inputs)), predictions(wanted(inputs))
            assert found is not None  # noqa: S101 - one per cell, as those that are wanted
            assert target is not None  # noqa: S101
            worth = torch.maximum(object_weights(target, classes), object_weights(found, classes))
            divergence, boxes, rest = apart(found, target, worth, classes)
            total += float(2 * divergence + BOX_WEIGHT * boxes + rest)
            count += len(inputs)
    return total / max(count, 1)


def apart(
    found: torch.Tensor, wanted: torch.Tensor, worth: torch.Tensor, classes: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """How far detections are from wanted ones, summed over objects.

    Args:
        found: ``[B, 4 + classes + …, cells]``: centre, width and height in pixels, then probabilities, and what else
            the head returns.
        wanted: the same.
        worth: ``[B, cells]``, how much each counts: :func:`seqprune.yolo.task.probe.object_weights` of what is wanted.
        classes: how many there are.

    Returns:
        Divergence of the classes in nats, the Bernoulli divergences of all classes added; squared errors of the four
        numbers of a box over its sides; squared errors of the rest over its mean square at objects.
    """
    worth = worth[:, None]
    p, q = (each[:, 4 : 4 + classes].clamp(LEAST, 1 - LEAST) for each in (wanted, found))
    divergence = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    sides = wanted[:, 2:4].clamp(min=1).repeat(1, 2, 1)
    boxes = ((found[:, :4] - wanted[:, :4]) / sides).square()
    size = mean_square(wanted[:, 4 + classes :], worth)
    rest = (found[:, 4 + classes :] - wanted[:, 4 + classes :]).square() / size[:, None]
    return (divergence * worth).sum(), (boxes * worth).sum(), (rest * worth).sum()
