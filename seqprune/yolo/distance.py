"""How far a changed detector's detections are from those of the detector it was made from, without labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from seqprune.observe.batch import Batch, as_input

BOX_WEIGHT = 100.0
"""A box that is off by a tenth of its side counts as much as a class at even odds that is off by two in its logit."""
_LEAST = 1e-6


def detection_distance(model: nn.Module, batches: Sequence[Batch], classes: int) -> Callable[[nn.Module], float] | None:
    """A function of a changed model: the sum over all predictions of what differs from ``model``.

    Differences of class logits count by ``p(1 - p)``, as they do in the divergence of the probabilities ``p``; those of
    boxes, relative to their sides and at most one, by the confidence of the unchanged model. Predictions nobody would
    look at count for next to nothing.

    Returns:
        ``None`` where the model does not return one prediction for every cell, as detectors without suppression do.
    """
    references = [_predictions(model, batch) for batch in batches]
    if any(found is None or found.shape[1] < 4 + classes for found in references):
        return None

    def distance(changed: nn.Module) -> float:
        total = 0.0
        for batch, reference in zip(batches, references, strict=True):
            found = _predictions(changed, batch)
            if found is None or reference is None:
                return float("nan")
            total += _apart(reference.double(), found.double(), classes)
        return total

    return distance


def _apart(reference: torch.Tensor, found: torch.Tensor, classes: int) -> float:
    """Of ``[B, 4 + classes + …, cells]``: centre, width and height in pixels, then probabilities."""
    before, after = (y[:, 4 : 4 + classes].clamp(_LEAST, 1 - _LEAST) for y in (reference, found))
    logits = (torch.logit(after) - torch.logit(before)) ** 2 * before * (1 - before)
    sides = reference[:, 2:4].clamp(min=1).repeat(1, 2, 1)
    boxes = ((found[:, :4] - reference[:, :4]) / sides) ** 2 * before.amax(1, keepdim=True)
    return float(logits.sum() + BOX_WEIGHT * boxes.clamp(max=1).sum())


def _predictions(model: nn.Module, batch: Batch) -> torch.Tensor | None:
    with torch.no_grad():
        found = model(as_input(batch.images, model))
    found = found[0] if isinstance(found, tuple | list) else found
    return found if isinstance(found, torch.Tensor) and found.dim() == 3 and found.shape[2] > 300 else None
