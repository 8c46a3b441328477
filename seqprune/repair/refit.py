"""Repairs what removal broke, without training: every convolution is fitted anew to what it computed before.

Front to back, the original and the pruned network in lockstep. Of each convolution whose input changed, the weights are
those that reproduce its original output best from what the pruned network feeds it now, in the least-squares sense
(asymmetric, as in Y. He, X. Zhang, J. Sun, "Channel pruning for accelerating very deep neural networks", ICCV 2017):

    W′ = (Cov(y, u) + λ·W) (Cov(u) + λ·I)⁻¹,    d = mean(y) − W′ mean(u),

``u`` the patches of channels that stay, ``y`` the original output, ``d`` the bias, or what the BatchNorm's running mean
is lowered by. Where something is added to what comes of a layer, as a shortcut, ``y`` makes up for its error too (as
there, section 3.3). ``λ`` is a share of the mean variance of ``u``; it draws the weights to the original ones. Where an
activation follows, the fit goes on to what comes out of it (:mod:`seqprune.repair.curve`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

from seqprune.budget.surgeon import RIDGE
from seqprune.graph.channels import BoolArray, ChannelGraph
from seqprune.observe.batch import LabelledImages
from seqprune.observe.extract import Progress
from seqprune.observe.forward import Forward
from seqprune.observe.patches import Sampler
from seqprune.observe.ranks import ALONE, Ranks, share
from seqprune.observe.reading import Reading, reading_of
from seqprune.observe.relevance import Relevance
from seqprune.observe.sources import Places
from seqprune.observe.streaming import BlockStream, whole_passes
from seqprune.repair.curve import Samples
from seqprune.repair.stage import Stage, is_other, write


@dataclass(frozen=True)
class _Fitting:
    """See :func:`refit`; ``ridge`` is ``None`` where offsets alone are fitted."""

    original: nn.Module
    masked: nn.Module
    graph: ChannelGraph
    removed: BoolArray
    images: LabelledImages
    reading: Reading
    streams: tuple[BlockStream, BlockStream] | None
    ridge: float | None
    bends: bool
    sampler: Sampler
    forward: Forward
    progress: Progress | None
    relevance: Relevance | None
    ranks: Ranks
    stages: Sequence[Sequence[str]]

    def there(self, names: Sequence[str]) -> list[str]:
        """Layers of a stage that are in no block that is left out."""
        known = dict(self.masked.named_modules())
        return [name for name in names if name in known]

    def changes(self, names: Sequence[str]) -> bool:
        """Whether channels left layers of a stage, one of them is a factor now, or is in a block that is left out."""
        if self.there(names) != list(names):
            return True
        found = (
            weights.get(name) for name in names for weights in (self.graph.weight_inputs, self.graph.weight_outputs)
        )
        if any(self.removed[groups].any() for groups in found if groups is not None):
            return True
        return any(is_other(self.masked.get_submodule(name), self.original.get_submodule(name)) for name in names)

    def fit(self, names: Sequence[str]) -> list[str]:
        """Fits a stage; those of its layers whose input changed."""
        if not (names := self.there(names)):
            return []
        stage = self._seen(names)
        own = [name for name in names if bool(stage.drift.get(name, False))]  # of this process
        kept, made = (
            {name: None if (g := groups.get(name)) is None else ~self.removed[g] for name in names}
            for groups in (self.graph.weight_inputs, self.graph.weight_outputs)
        )
        kept |= dict.fromkeys(self.graph.folds)  # what is constant there once removed is read on, until it is folded
        fits = self.ranks.joined({name: stage.fit(name, kept[name], made[name], self.ridge) for name in own})
        fitted = [name for name in names if name in fits]
        for name in fitted:
            write(self.original, self.masked, name, self.reading.unit(name).norm, fits[name], made[name])
        return fitted

    def _seen(self, names: Sequence[str]) -> Stage:
        """What the layers of a stage read and give, in both networks, of all images."""
        bent = [name for name in names if self.bends and getattr(self.original.get_submodule(name), "groups", 1) == 1]
        curves = {name: self.reading.unit(name).curve(self.original, name) for name in bent}
        samples = {name: Samples(curve, len(self.images)) for name, curve in curves.items() if curve is not None}
        here = next(number for number, stage in enumerate(self.stages) if names[0] in stage)
        later = self.there([name for stage in self.stages[here + 1 :] for name in stage])
        stage = Stage(self.original, self.masked, names, samples, self.reading, len(self.images), later, self.ranks)
        mine, rounds = share(self.images, self.ranks), -(-len(self.images) // self.ranks.count)
        both = [
            whole_passes(model, mine)
            if self.streams is None
            else self.streams[at].passes(model, names, mine, self.forward)
            for at, model in enumerate((self.original, self.masked))
        ]
        for whole, part in zip(*both, strict=True):
            stage.look(whole, part, Places(self.sampler, whole.batch, self.relevance), self.forward)
            stage.pieces.settle()
            if self.progress is not None:
                self.progress(whole.images * self.ranks.count)  # the others are about as far
        if len(mine) < rounds:
            stage.pieces.settle()
        return stage


def refit(
    original: nn.Module,
    masked: nn.Module,
    graph: ChannelGraph,
    removed: BoolArray,
    images: LabelledImages,
    stages: Sequence[Sequence[str]],
    *,
    streams: tuple[BlockStream, BlockStream] | None = None,
    weights: bool = True,
    bends: bool = True,
    sampler: Sampler | None = None,
    ridge: float = RIDGE,
    forward: Forward | None = None,
    progress: Progress | None = None,
    relevance: Relevance | None = None,
    reading: Reading | None = None,
    start: int = 0,
    on_stage: Callable[[int], None] = lambda _done: None,
    ranks: Ranks = ALONE,
) -> tuple[str, ...]:
    """Fits the convolutions of ``masked``, in place, to what those of ``original`` compute.

    Args:
        original: the unpruned network, in inference mode.
        masked: the same with the removed channels zero, on the same device. The second convolution of a pair is fitted
            to the one of that name in ``original``; see :func:`seqprune.graph.factor.aligned`.
        graph: their channel graph.
        removed: ``[group_count]``.
        images: calibration images; their labels matter for which positions are looked at.
        stages: convolutions in execution order; those of one stage do not read each other.
        streams: make all stages together cost about one pass, for each of the networks; whole passes without them.
        weights: whether weights are fitted; offsets alone otherwise, which corrects the means.
        bends: whether the fit goes on through activations.
        sampler: which positions are looked at.
        ridge: relative to the mean variance of a convolution's input.
        forward: precision, and how many images at a time.
        progress: told the number of images of every batch of every stage.
        relevance: draws the positions instead of the sampler, from the same images.
        reading: what follows the layers of ``original``; looked at on the first image where it is left out.
        start: so many stages are fitted already.
        on_stage: told how many are, after each.
        ranks: the processes that share the images, and the layers of a stage; all come to the same weights.

    Returns:
        The convolutions that were fitted, front to back: those whose input changed.
    """
    reading = reading or reading_of(original, next(iter(images)))
    fitting = _Fitting(
        *(original, masked, graph, removed, images, reading, streams, ridge if weights else None, weights and bends),
        *(sampler or Sampler(), forward or Forward(), progress, relevance, ranks, stages),
    )
    changed = next((number for number, names in enumerate(stages) if fitting.changes(names)), len(stages))
    fitted: list[str] = []
    for number in range(max(changed, start), len(stages)):
        fitted += fitting.fit(stages[number])
        on_stage(number + 1)
    return tuple(fitted)
