"""Recovery without training: a few repairs, each kept only where images that it has not seen say that it helps."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Literal

from torch import nn

from seqprune.graph.channels import ChannelGraph
from seqprune.observe.batch import LabelledImages, as_input
from seqprune.observe.forward import Forward
from seqprune.plan import PrunePlan
from seqprune.surgery import masker

Recover = Literal["none", "ls", "bias", "bn"]
STEPS: dict[str, tuple[str, ...]] = {"none": (), "ls": ("ls", "bn"), "bias": ("bias", "bn"), "bn": ("bn",)}
"""What each way tries, one after the other: least squares, offsets alone, BatchNorm statistics."""


@dataclass(frozen=True)
class Repair:
    """One step of recovery.

    Attributes:
        step: ``ls``, ``bias`` or ``bn``.
        kept: whether the model was changed by it.
        before: loss on held-out images without it; lower is better. ``None`` where none were held out.
        after: the same with it.
    """

    step: str
    kept: bool
    before: float | None = None
    after: float | None = None


def recover(
    masked: nn.Module,
    plan: PrunePlan,
    graph: ChannelGraph,
    images: LabelledImages,
    way: Recover,
    fit: Callable[[nn.Module, bool, LabelledImages], object],
    judge: Callable[[nn.Module], float] | None = None,
    forward: Forward | None = None,
    everything: LabelledImages | None = None,
) -> tuple[nn.Module, tuple[Repair, ...]]:
    """Tries the steps of ``way`` on a masked model.

    Args:
        masked: changed nowhere.
        plan: what stays of it.
        graph: its channel graph.
        images: calibration images, those without which the judge decides.
        way: which steps.
        fit: fits a masked model to images, in place; the second argument says whether weights are fitted or offsets
            alone.
        judge: the loss on images that were held out; without it every step is kept.
        forward: precision, and how many images at a time.
        everything: with the images that were held out: once it is decided, what is kept is done anew with all of them,
            since a fit to more images is a better one.

    Returns:
        The best model and what became of every step.
    """

    def apply(step: str, model: nn.Module, images: LabelledImages) -> None:
        if step == "bn":
            restate(model, images, forward)
            masker(plan, graph)(model)
        else:
            fit(model, step == "ls", images)

    best = masked
    loss = None if judge is None or not STEPS[way] else judge(masked)
    repairs = []
    for step in STEPS[way]:
        candidate = deepcopy(best)
        apply(step, candidate, images)
        after = None if judge is None else judge(candidate)
        kept = loss is None or after is None or after < loss
        repairs.append(Repair(step, kept, loss, after))
        if kept:
            best, loss = candidate, after
    if everything is not None and best is not masked:
        best = deepcopy(masked)
        for repair in repairs:
            if repair.kept:
                apply(repair.step, best, everything)
    return best, tuple(repairs)


def restate(model: nn.Module, images: LabelledImages, forward: Forward | None = None) -> None:
    """Takes the statistics of every BatchNorm anew, in place: means over batches, as it would in training."""
    forward = forward or Forward()
    device = next(model.parameters()).device
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over all batches
        norm.train()
    try:
        for batch in images:
            forward(len(batch.images), device, lambda part, batch=batch: model(as_input(batch.images[part], model)))  # type: ignore[misc]
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()
