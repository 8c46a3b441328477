"""What a detector's detections are worth: a probe for :mod:`seqprune.observe.relevance`, without labels.

Every object that the detector finds counts by its confidence, a small one in a few cells as much as a large one in
many: what suppression would put together shares the weight of the best. An error in the logit of a class costs
``p(1 - p)``, as it does in the divergence of the probabilities ``p``; one of a box its square relative to the box.
"""

from __future__ import annotations

from typing import Any

import torch
import torchvision
from torch import nn
from ultralytics.nn.modules import OBB, Detect

from seqprune.graph.copying import copied
from seqprune.observe.batch import LabelledImages
from seqprune.observe.inputs import as_input
from seqprune.observe.relevance import Probe
from seqprune.yolo.files.networks import forget_inputs

BOX_WEIGHT = 8.0
"""A box that is off by a quarter of its side counts as much as a class at even odds that is off by √2 in its logit."""
CONFIDENT, OVERLAP, SHARPNESS = 0.05, 0.65, 4.0
LEAST = 1e-6


def probe_for(model: nn.Module, images: LabelledImages, classes: int) -> tuple[nn.Module, Probe] | None:
    """A copy of a detector that can be asked, and what asks it.

    Returns:
        ``None`` where no gradient comes from one prediction for every cell: classifiers, detectors of queries, and
        those that need no suppression where Ultralytics detaches them (8.3.200 does, 8.4.190 does not).
    """
    asked = one_per_cell(model, images, classes)
    if asked is None or not asked[1].requires_grad:
        return None
    copy, _ = asked

    def probe(model: nn.Module, inputs: torch.Tensor, random: torch.Generator) -> torch.Tensor:
        y = predictions(model(inputs))
        assert y is not None  # noqa: S101 - it was looked at above
        worth = object_weights(y.detach().float(), classes)[:, None]
        boxes, scores, rest = y[:, :4], y[:, 4 : 4 + classes].clamp(LEAST, 1 - LEAST), y[:, 4 + classes :]
        known = scores.detach()
        sides = boxes[:, 2:].detach().clamp(min=1).repeat(1, 2, 1)
        terms = [scores / (known * (1 - known)).sqrt(), BOX_WEIGHT**0.5 * boxes / sides]
        if rest.numel():  # masks' coefficients, key points, angles: relative to their size at objects
            terms.append(rest / mean_square(rest.detach(), worth).sqrt()[:, None])
        total = torch.zeros((), device=y.device)
        for term in terms:
            # Signs, as Hutchinson drew: of all independent numbers they let the squared gradient vary least.
            signs = torch.randint(0, 2, term.shape, generator=random).to(term) * 2 - 1
            total = total + (worth.sqrt() * signs * term).sum()
        return total

    return copy, probe


def one_per_cell(model: nn.Module, images: LabelledImages, classes: int) -> tuple[nn.Module, torch.Tensor] | None:
    """A copy as of :func:`every_cell` with its predictions for an image; ``None`` where there is not one for each cell.

    The predictions have a gradient where one can be followed back to the image.
    """
    copy = every_cell(model)
    image = as_input(next(iter(images)).images[:1], copy).requires_grad_()
    with torch.enable_grad():
        found = predictions(copy(image))
    return (copy, found) if found is not None and _is_one_per_cell(found, copy, image, classes) else None


def mean_square(values: torch.Tensor, worth: torch.Tensor) -> torch.Tensor:
    """``[C]``, at objects: of ``values`` ``[B, C, cells]``, which count by ``worth`` ``[B, 1, cells]``."""
    return ((values.square() * worth).sum((0, 2)) / worth.sum().clamp(min=LEAST)).clamp(min=LEAST)


def object_weights(predictions: torch.Tensor, classes: int) -> torch.Tensor:
    """``[B, cells]``: each object's confidence, spread over the cells that predict it, most of it on the best.

    Args:
        predictions: ``[B, 4 + classes + …, cells]``, centre, width and height in pixels, then probabilities.
        classes: how many there are.
    """
    found = torch.zeros(len(predictions), predictions.shape[2], device=predictions.device)
    for worth, each in zip(found, predictions, strict=True):
        score, kind = each[4 : 4 + classes].max(0)
        cells = (score > CONFIDENT).nonzero().flatten()
        if not len(cells):
            continue
        centre, side = each[:2, cells].T, each[2:4, cells].T
        corners = torch.cat([centre - side / 2, centre + side / 2], 1)
        score, kind = score[cells], kind[cells]
        best = torchvision.ops.batched_nms(corners, score, kind, OVERLAP)
        same = torchvision.ops.box_iou(corners[best], corners) > OVERLAP
        same &= kind[best][:, None] == kind
        same[torch.arange(len(best)), best] = True  # a box without area overlaps with nothing, itself included
        shares = same * score**SHARPNESS
        worth[cells] = (score[best][:, None] * shares / shares.sum(1, keepdim=True)).sum(0)
    return found


def every_cell(model: nn.Module) -> nn.Module:
    """A copy in inference mode, without gradients, that returns its prediction for every cell.

    Heads that would choose among them return all, as the others do.
    """
    copy = copied(model).eval().requires_grad_(False)
    forget_inputs(copy)

    def centred(found: torch.Tensor, *_: object) -> torch.Tensor:
        corners = found[..., :4]
        boxes = torch.cat(((corners[..., :2] + corners[..., 2:]) / 2, corners[..., 2:] - corners[..., :2]), -1)
        return torch.cat((boxes, found[..., 4:]), -1).transpose(1, 2)

    def turned(found: torch.Tensor, *_: object) -> torch.Tensor:  # by centre and sides to begin with
        return found.transpose(1, 2)

    head: Any
    for head in copy.modules():
        if isinstance(head, Detect) and head.end2end:
            head.postprocess = turned if isinstance(head, OBB) else centred
    return copy


def _is_one_per_cell(found: torch.Tensor, model: nn.Module, images: torch.Tensor, classes: int) -> bool:
    """Whether there are boxes and classes for each cell of all maps."""
    strides = getattr(model, "stride", None)
    if strides is None or found.dim() != 3 or found.shape[1] < 4 + classes:
        return False
    height, width = images.shape[-2:]
    return found.shape[2] == sum((height // int(s)) * (width // int(s)) for s in strides)


def predictions(found: object) -> torch.Tensor | None:
    """The first tensor of what a network returns; those that segment return theirs in a pair of its own."""
    while isinstance(found, tuple | list) and found:
        found = found[0]
    return found if isinstance(found, torch.Tensor) else None
