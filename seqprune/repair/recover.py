"""Recovery without training: a few repairs, each kept only where images that it has not seen say that it helps."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Literal, Protocol, cast

import torch
from torch import nn

from seqprune.graph.channels import ChannelGraph
from seqprune.graph.copying import copied
from seqprune.observe.batch import Batch, LabelledImages, every
from seqprune.observe.forward import Forward
from seqprune.plan import PrunePlan
from seqprune.surgery import masker

Recover = Literal["none", "ls", "bias", "bn"]
STEPS: dict[str, tuple[str, ...]] = {"none": (), "ls": ("ls",), "bias": ("bias", "bn"), "bn": ("bn",)}
"""What each way tries, one after the other: least squares, offsets alone, BatchNorm statistics. Not these after least
squares, whose outputs vary less where they are less certain: scaled up, so are their errors."""

QUICK = 4
"""One batch in so many is enough to see that least squares help."""


class Keep(Protocol):
    """Where findings are kept, so that a repair that was killed goes on; see :class:`seqprune.engine.state.State`."""

    def number(self, name: str, make: Callable[[], float]) -> float:
        """A number that was found under that name before, or is now."""

    def fitted(self, name: str, model: nn.Module, fit: Callable[[int, Callable[[int], None]], object]) -> None:
        """Fits a network in place, from where an earlier run of it stopped."""


class Nowhere:
    """Keeps nothing."""

    def number(self, _name: str, make: Callable[[], float]) -> float:
        return make()

    def fitted(self, _name: str, _model: nn.Module, fit: Callable[[int, Callable[[int], None]], object]) -> None:
        fit(0, lambda _stages: None)


class Fit(Protocol):
    """Fits a masked model to images, in place."""

    def __call__(
        self,
        model: nn.Module,
        weights: bool,
        images: LabelledImages,
        start: int,
        on_stage: Callable[[int], None],
        quick: bool,
    ) -> object:
        """``weights``: whether those are fitted, or offsets alone; ``start``: so many stages are already; ``quick``:
        rather soon than well.
        """


@dataclass(frozen=True)
class Repair:
    """One step of recovery.

    Attributes:
        step: ``ls``, ``bias`` or ``bn``.
        kept: whether the model was changed by it.
        before: loss on held-out images without it; lower is better. ``None`` where none were held out.
        after: the same with it, as it was tried: fitted without these images, and quickly where that was enough.
    """

    step: str
    kept: bool
    before: float | None = None
    after: float | None = None


@dataclass(frozen=True)
class _Trial:
    """What steps are tried with."""

    original: nn.Module
    plan: PrunePlan
    graph: ChannelGraph
    fit: Fit
    judge: Callable[[nn.Module], float] | None
    forward: Forward | None
    keep: Keep

    def apply(self, step: str, model: nn.Module, images: LabelledImages, how: str) -> None:
        """One step on a model, in place; ``how`` it is done is ``quick``, ``tried`` or ``kept``."""

        def work(start: int, on_stage: Callable[[int], None]) -> None:
            if step == "bn":
                restate(self.original, model, images, self.forward)
                masker(self.plan, self.graph)(model)
            else:
                self.fit(model, step == "ls", images, start, on_stage, how == "quick")

        self.keep.fitted(f"{how}-{step}", model, work)

    def judged(self, name: str, model: nn.Module) -> float | None:
        """Its loss; ``None`` without a judge."""
        judge = self.judge
        return None if judge is None else self.keep.number(f"judged-{name}", lambda: judge(model))


def recover(
    original: nn.Module,
    masked: nn.Module,
    plan: PrunePlan,
    graph: ChannelGraph,
    images: LabelledImages,
    way: Recover,
    fit: Fit,
    judge: Callable[[nn.Module], float] | None = None,
    forward: Forward | None = None,
    everything: LabelledImages | None = None,
    keep: Keep | None = None,
) -> tuple[nn.Module, tuple[Repair, ...]]:
    """Tries the steps of ``way`` on a masked model.

    Args:
        original: the unpruned network.
        masked: changed nowhere.
        plan: what stays of it.
        graph: its channel graph.
        images: calibration images, those without which the judge decides.
        way: which steps.
        judge: the loss on images that were held out; without it every step is kept.
        forward: precision, and how many images at a time.
        everything: with the images that were held out: once it is decided, what is kept is done anew with all of them,
            since a fit to more images is a better one.
        keep: where findings are kept.

    Returns:
        The best model and what became of every step.
    """
    trial = _Trial(original, plan, graph, fit, judge, forward, keep or Nowhere())
    best = masked
    loss = trial.judged("masked", masked) if STEPS[way] else None
    repairs = []
    for step in STEPS[way]:
        # What helps though it was fitted to a few images helps, and need not be tried with all but those held out.
        for how in ("quick", "tried") if step == "ls" and everything is not None else ("tried",):
            candidate = copied(best)
            trial.apply(step, candidate, every(images, 0, QUICK) if how == "quick" else images, how)
            after = trial.judged(f"{how}-{step}", candidate)
            kept = loss is None or after is None or after < loss
            if kept:
                break
        repairs.append(Repair(step, kept, loss, after))
        if kept:
            best, loss = candidate, after
    if everything is not None and best is not masked:
        best = copied(masked)
        for repair in repairs:
            if repair.kept:
                trial.apply(repair.step, best, everything, "kept")
    return best, tuple(repairs)


def restate(original: nn.Module, model: nn.Module, images: LabelledImages, forward: Forward | None = None) -> None:
    """Corrects the statistics of every BatchNorm of ``model``, in place, for what pruning did to its inputs.

    Calibration images are too few, and too much alike, to take statistics anew: YOLOv8n itself loses by it. So both
    networks are asked, and what was trained is scaled and shifted as the pruned one's statistics are against those of
    the original:

        σ² = σ₀² · s²,    μ = μ_pruned + (μ₀ − μ_original) · s,    s = σ_pruned / σ_original,

    ``μ₀``, ``σ₀`` the original's running statistics, the others means over batches, each normalised by itself as in
    training. A network that was not pruned stays as it is, up to rounding; so does a channel that never varied.
    """
    before, after = _statistics(original, images, forward), _statistics(model, images, forward)
    with torch.no_grad():
        for name, (mean, variance) in after.items():
            old_mean, old_variance = before[name]
            known_mean, known_variance = _running(original.get_submodule(name))
            square = torch.where(old_variance > 0, variance / old_variance, torch.ones_like(variance))
            running_mean, running_variance = _running(model.get_submodule(name))
            running_mean.copy_(mean + (known_mean - old_mean) * square.sqrt())
            running_variance.copy_(known_variance * square)


def _running(norm: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    return cast(torch.Tensor, norm.running_mean), cast(torch.Tensor, norm.running_var)


def _statistics(
    model: nn.Module, images: LabelledImages, forward: Forward | None
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """By BatchNorm, means over batches of its input's mean and variance, ``[channels]`` float64."""
    copy, forward = copied(model), forward or Forward()
    device = next(copy.parameters()).device
    norms = {
        name: module
        for name, module in copy.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats
    }
    for norm in norms.values():
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over all batches
        norm.train()
    for batch in images:

        def run(part: slice, batch: Batch = batch) -> None:
            before = {name: deepcopy(norm.state_dict()) for name, norm in norms.items()}
            try:
                batch.run(copy, part)
            except torch.cuda.OutOfMemoryError:  # the part is run again in halves
                for name, norm in norms.items():
                    norm.load_state_dict(before[name])
                raise

        forward(batch.count, device, run)
    running = {name: _running(norm) for name, norm in norms.items()}
    return {name: (mean.double(), variance.double()) for name, (mean, variance) in running.items()}
