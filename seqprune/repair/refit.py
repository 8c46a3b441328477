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

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from math import ceil
from typing import cast

import numpy as np
import torch
from torch import nn

from seqprune.budget.surgeon import RIDGE
from seqprune.graph.channels import BoolArray, ChannelGraph
from seqprune.observe.batch import LabelledImages
from seqprune.observe.extract import Progress
from seqprune.observe.forward import Forward, Once
from seqprune.observe.patches import Drawn, Positions, Sampler, SecondMoments, map_size, patches, values_at
from seqprune.observe.ranks import ALONE, Pieces, Ranks, share
from seqprune.observe.reading import Reading, reading_of
from seqprune.observe.relevance import Relevance
from seqprune.observe.sources import Places
from seqprune.observe.streaming import BlockStream, Pass, whole_passes
from seqprune.observe.watching import entering, watching
from seqprune.repair.curve import Samples, bend
from seqprune.repair.solve import solve

FLAT = 1e-3
"""Of the greatest factor of a BatchNorm: where it is less, nothing is made up for in front of it."""
ENOUGH, LEAST = 128, 1 << 13
"""Samples for every weight of a row, and at least, of a convolution in groups: each of them has few weights, all
together read much, and of more samples they would gain less than one percent."""


class _Reached(Exception):
    pass


@dataclass
class _Stage:
    """Convolutions that are fitted together, and what was seen of them."""

    original: nn.Module
    pruned: nn.Module
    names: Sequence[str]
    samples: dict[str, Samples]
    reading: Reading
    batches: int
    ranks: Ranks = ALONE
    moments: dict[str, SecondMoments] = field(default_factory=dict)
    drift: dict[str, bool | torch.Tensor] = field(default_factory=dict)

    @cached_property
    def pieces(self) -> Pieces:
        """What is seen of the batches, by all processes; each gets what the layers need that it fits."""
        return Pieces(self.ranks, self.put, {name: number for number, name in enumerate(self.names)})

    def put(
        self,
        name: str,
        drifted: bool | torch.Tensor,
        seen: torch.Tensor,
        wanted: torch.Tensor,
        weight: torch.Tensor | None,
    ) -> None:
        """One batch's part of one layer."""
        self.drift[name] = self.drift.get(name, False) | drifted
        device = next(self.pruned.parameters()).device
        seen, wanted = seen.to(device), wanted.to(device)
        self.moments.setdefault(name, SecondMoments()).update(seen, wanted, weight)
        if name in self.samples:
            self.samples[name].add(seen[0], wanted[0], weight)

    @cached_property
    def shortcuts(self) -> dict[str, str]:
        """By layer, what reads the tensor that is added to its outputs."""
        paths = {name: self.reading.unit(name).shortcut for name in self.names}
        return {name: path for name, path in paths.items() if path is not None}

    def look(self, whole: Pass, part: Pass, places: Places, forward: Forward) -> None:
        """Runs one batch through both networks."""
        device = next(self.pruned.parameters()).device
        run_whole, run_part, once = whole.ready(), part.ready(), Once()
        all_images = self.batches * whole.images

        def drawn_for(name: str, layer: nn.Module, output: torch.Tensor, images: slice) -> Drawn:
            drawn = places.of(name, map_size(layer, output), images)
            if getattr(layer, "groups", 1) == 1:
                return drawn
            columns = cast(torch.Tensor, layer.weight)[0].numel()
            most = ceil(max(ENOUGH * columns, LEAST) / all_images)
            return drawn.thinned(images.stop - images.start, most)

        def run(images: slice) -> None:
            before: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
            beside: tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]] = ({}, {})

            def target(name: str, layer: nn.Module, x: torch.Tensor, output: torch.Tensor) -> None:
                if name in before:
                    return  # a layer that runs twice is fitted to its first run
                where = drawn_for(name, layer, output, images).where
                wanted = values_at(layer, output, where)
                if (added := self.added(name, layer, output, beside[0], where)) is not None:
                    wanted = wanted + added
                before[name] = patches(layer, x, where, output), wanted
                if len(before) == len(self.names):
                    raise _Reached

            def source(name: str, layer: nn.Module, x: torch.Tensor, output: torch.Tensor) -> None:
                if name not in before:
                    return
                drawn = drawn_for(name, layer, output, images)
                seen = patches(layer, x, drawn.where, output)
                unpruned, wanted = before.pop(name)
                # A GPU is not asked for an answer before the stage is over.
                drifted = (unpruned != seen).any() if seen.is_cuda else not torch.equal(unpruned, seen)
                if (added := self.added(name, layer, output, beside[1], drawn.where)) is not None:
                    wanted = wanted - added
                wanted = wanted.reshape(len(wanted), len(seen), -1).transpose(0, 1)

                once(name, images, lambda: self.pieces.add(name, drifted, seen, wanted, drawn.weight))
                if not before:
                    raise _Reached

            paths = set(self.shortcuts.values())
            with (
                entering(self.original, paths, beside[0].__setitem__),
                watching(self.original, self.names, target),
                suppress(_Reached),
            ):
                run_whole(images)
            with (
                entering(self.pruned, paths, beside[1].__setitem__),
                watching(self.pruned, self.names, source),
                suppress(_Reached),
            ):
                run_part(images)

        forward(whole.images, device, run)

    def added(
        self, name: str, layer: nn.Module, output: torch.Tensor, beside: Mapping[str, torch.Tensor], where: Positions
    ) -> torch.Tensor | None:
        """What is added to a layer's outputs behind its BatchNorm, as if it were in front of that: ``[N, outputs]``."""
        found = beside.get(self.shortcuts.get(name, ""))
        if found is None or found.shape != output.shape:
            return None
        scale = self.reading.unit(name).affine(self.original, name)[0].float()
        flat = scale.abs() < FLAT * scale.abs().max()  # what an output does there is next to nothing
        return values_at(layer, found, where).float() / scale.masked_fill(flat, torch.inf)

    def fit(
        self, name: str, inputs: BoolArray | None, outputs: BoolArray | None, ridge: float | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights and offsets of one convolution."""
        conv = cast(nn.Conv2d, self.pruned.get_submodule(name))
        offset = conv.bias is not None or self.reading.unit(name).norm is not None
        whole = cast(nn.Conv2d, self.original.get_submodule(name))
        weight = (conv if _is_other(conv, whole) else whole).weight.detach().double().flatten(1)
        found = solve(weight, self.moments[name], inputs, ridge, offset)
        if ridge is None or name not in self.samples:
            return found
        return bend(weight, *found, self.moments[name], self.samples.pop(name), inputs, ridge, outputs)


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
    sampler, forward = sampler or Sampler(), forward or Forward()
    reading = reading or reading_of(original, next(iter(images)))
    inputs, outputs = graph.weight_inputs, graph.weight_outputs
    fitted: list[str] = []
    mine, rounds = share(images, ranks), -(-len(images) // ranks.count)
    changed = False
    for number, names in enumerate(stages):
        cut_here = (groups for name in names for groups in (inputs.get(name), outputs.get(name)) if groups is not None)
        changed = changed or any(removed[groups].any() for groups in cut_here)
        changed = changed or any(_is_other(masked.get_submodule(n), original.get_submodule(n)) for n in names)
        if not changed or number < start:
            continue
        bent = [name for name in names if weights and bends and getattr(original.get_submodule(name), "groups", 1) == 1]
        curves = {name: reading.unit(name).curve(original, name) for name in bent}
        samples = {name: Samples(curve, len(images)) for name, curve in curves.items() if curve is not None}
        stage = _Stage(original, masked, names, samples, reading, len(images), ranks)
        both = [
            whole_passes(model, mine) if streams is None else streams[at].passes(model, names, mine, forward)
            for at, model in enumerate((original, masked))
        ]
        for whole, part in zip(*both, strict=True):
            stage.look(whole, part, Places(sampler, whole.batch, relevance), forward)
            stage.pieces.settle()
            if progress is not None:
                progress(whole.images * ranks.count)  # the others are about as far
        if len(mine) < rounds:
            stage.pieces.settle()
        own = [name for name in names if bool(stage.drift.get(name, False))]  # of this process, whose inputs changed
        kept, made = (
            {name: None if (g := groups.get(name)) is None else ~removed[g] for name in names}
            for groups in (inputs, outputs)
        )
        asked = ridge if weights else None
        fits = ranks.joined({name: stage.fit(name, kept[name], made[name], asked) for name in own})
        for name in (name for name in names if name in fits):
            _write(original, masked, name, reading.unit(name).norm, fits[name], made[name])
            fitted.append(name)
        on_stage(number + 1)
    return tuple(fitted)


def _is_other(conv: nn.Module, whole: nn.Module) -> bool:
    """Whether a convolution is a factor of the one that it is fitted to."""
    return getattr(conv, "kernel_size", None) != getattr(whole, "kernel_size", None)


def _write(
    original: nn.Module,
    masked: nn.Module,
    name: str,
    norm: str | None,
    fit: tuple[torch.Tensor, torch.Tensor],
    outputs: BoolArray | None,
) -> None:
    """Gives one convolution the fitted weights, and its bias or BatchNorm the fitted offset."""
    conv = cast(nn.Conv2d, masked.get_submodule(name))
    fitted, offset = fit
    live = torch.from_numpy(np.ones(len(fitted), bool) if outputs is None else outputs).to(fitted.device)
    with torch.no_grad():
        conv.weight[live] = fitted.reshape(conv.weight.shape)[live].to(conv.weight.dtype)
        if conv.bias is not None:
            conv.bias[live] = offset[live].to(conv.bias.dtype)
        elif norm is not None:
            before = cast(torch.Tensor, cast(nn.BatchNorm2d, original.get_submodule(norm)).running_mean)
            mean = cast(torch.Tensor, cast(nn.BatchNorm2d, masked.get_submodule(norm)).running_mean)
            mean[live] = (before.double() - offset)[live].to(mean.dtype)
