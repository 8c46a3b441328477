"""Repairs what removal broke, without training: every convolution is fitted anew to what it computed before.

Front to back, the original and the pruned network in lockstep. Of each convolution whose input changed, the weights are
those that reproduce its original output best from what the pruned network feeds it now, in the least-squares sense
(asymmetric, as in Y. He, X. Zhang, J. Sun, "Channel pruning for accelerating very deep neural networks", ICCV 2017):

    W′ = (Cov(y, u) + λ·W) (Cov(u) + λ·I)⁻¹,    d = mean(y) − W′ mean(u),

``u`` the patches of channels that stay, ``y`` the original output, ``d`` the bias, or what the BatchNorm's running mean
is lowered by. ``λ`` is a share of the mean variance of ``u``; it draws the weights to the original ones. Where an
activation follows, the fit goes on to what comes out of it (:mod:`seqprune.repair.curve`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import torch
from torch import nn

from seqprune.budget.surgeon import RIDGE
from seqprune.graph.channels import BoolArray, ChannelGraph
from seqprune.observe.batch import LabelledImages
from seqprune.observe.extract import Progress
from seqprune.observe.forward import Forward, Once
from seqprune.observe.patches import Sampler, SecondMoments, as_map, map_size, patches
from seqprune.observe.reading import Reading, reading_of
from seqprune.observe.relevance import Relevance
from seqprune.observe.sources import Places
from seqprune.observe.streaming import BlockStream, Pass, whole_passes
from seqprune.observe.watching import watching
from seqprune.repair.curve import Samples, bend, columns_of


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
    moments: dict[str, SecondMoments] = field(default_factory=dict)
    drifted: set[str] = field(default_factory=set)

    def look(self, whole: Pass, part: Pass, places: Places, forward: Forward) -> None:
        """Runs one batch through both networks."""
        device = next(self.pruned.parameters()).device
        run_whole, run_part, once = whole.ready(), part.ready(), Once()

        def run(images: slice) -> None:
            before: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

            def target(name: str, layer: nn.Module, x: torch.Tensor, output: torch.Tensor) -> None:
                if name in before:
                    return  # a layer that runs twice is fitted to its first run
                where = places.of(name, map_size(layer, output), images).where
                image, row, column = (index.to(device) for index in where)
                before[name] = patches(layer, x, where, output), as_map(layer, output)[image, :, row, column]
                if len(before) == len(self.names):
                    raise _Reached

            def source(name: str, layer: nn.Module, x: torch.Tensor, output: torch.Tensor) -> None:
                if name not in before:
                    return
                drawn = places.of(name, map_size(layer, output), images)
                seen = patches(layer, x, drawn.where, output)
                unpruned, wanted = before.pop(name)
                if not torch.equal(unpruned, seen):
                    self.drifted.add(name)
                wanted = wanted.reshape(len(wanted), len(seen), -1).transpose(0, 1)

                def add() -> None:
                    self.moments.setdefault(name, SecondMoments()).update(seen, wanted, drawn.weight)
                    if name in self.samples:
                        self.samples[name].add(seen[0], wanted[0], drawn.weight)

                once(name, images, add)
                if not before:
                    raise _Reached

            with watching(self.original, self.names, target), suppress(_Reached):
                run_whole(images)
            with watching(self.pruned, self.names, source), suppress(_Reached):
                run_part(images)

        forward(whole.images, device, run)

    def fit(self, name: str, inputs: BoolArray | None, ridge: float | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights and offsets of one convolution."""
        conv = cast(nn.Conv2d, self.pruned.get_submodule(name))
        offset = conv.bias is not None or self.reading.unit(name).norm is not None
        whole = cast(nn.Conv2d, self.original.get_submodule(name))
        weight = (conv if _is_other(conv, whole) else whole).weight.detach().double().flatten(1)
        found = solve(weight, self.moments[name], inputs, ridge, offset)
        if ridge is None or name not in self.samples:
            return found
        return bend(weight, *found, self.moments[name], self.samples.pop(name), inputs, ridge)


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
    sampler: Sampler | None = None,
    ridge: float = RIDGE,
    forward: Forward | None = None,
    progress: Progress | None = None,
    relevance: Relevance | None = None,
    reading: Reading | None = None,
    start: int = 0,
    on_stage: Callable[[int], None] = lambda _done: None,
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
        sampler: which positions are looked at.
        ridge: relative to the mean variance of a convolution's input.
        forward: precision, and how many images at a time.
        progress: told the number of images of every batch of every stage.
        relevance: draws the positions instead of the sampler, from the same images.
        reading: what follows the layers of ``original``; looked at on the first image where it is left out.
        start: so many stages are fitted already.
        on_stage: told how many are, after each.

    Returns:
        The convolutions that were fitted, front to back: those whose input changed.
    """
    sampler, forward = sampler or Sampler(), forward or Forward()
    reading = reading or reading_of(original, next(iter(images)))
    inputs, outputs = graph.weight_inputs, graph.weight_outputs
    fitted: list[str] = []
    changed = False
    for number, names in enumerate(stages):
        cut_here = (groups for name in names for groups in (inputs.get(name), outputs.get(name)) if groups is not None)
        changed = changed or any(removed[groups].any() for groups in cut_here)
        changed = changed or any(_is_other(masked.get_submodule(n), original.get_submodule(n)) for n in names)
        if not changed or number < start:
            continue
        bent = [name for name in names if weights and getattr(original.get_submodule(name), "groups", 1) == 1]
        curves = {name: reading.unit(name).curve(original, name) for name in bent}
        samples = {name: Samples(curve, len(images)) for name, curve in curves.items() if curve is not None}
        stage = _Stage(original, masked, names, samples, reading)
        both = [
            whole_passes(model, images) if streams is None else streams[at].passes(model, names, images, forward)
            for at, model in enumerate((original, masked))
        ]
        for whole, part in zip(*both, strict=True):
            stage.look(whole, part, Places(sampler, whole.batch, relevance), forward)
            if progress is not None:
                progress(whole.images)
        for name in sorted(stage.drifted, key=list(names).index):
            read, made = (None if g is None else ~removed[g] for g in (inputs.get(name), outputs.get(name)))
            fit = stage.fit(name, read, ridge if weights else None)
            _write(original, masked, name, reading.unit(name).norm, fit, made)
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


def solve(
    weight: torch.Tensor, moments: SecondMoments, inputs: BoolArray | None, ridge: float | None, offset: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """The weights that reproduce the targets best, convolution group by convolution group.

    Args:
        weight: ``[outputs, K]`` float64, the original ones.
        moments: of patches and targets.
        inputs: ``[channels]``, or ``[conv_groups, channels]``, which inputs stay; all where it is left out.
        ridge: relative to the mean variance of the patches; ``None`` leaves the weights as they are.
        offset: whether there is a bias to take the means; without one, products are taken around zero.

    Returns:
        Weights ``[outputs, K]``, those of removed inputs as they were, and the offsets ``[outputs]``.
    """
    weight, shift = weight.clone(), torch.zeros(len(weight), dtype=weight.dtype, device=weight.device)
    groups, size = len(moments.products), weight.shape[1]
    for number, rows in enumerate(torch.arange(len(weight), device=weight.device).chunk(groups)):
        own = inputs if inputs is None or inputs.ndim == 1 else inputs[number]
        stay = columns_of(own, size).to(weight.device)
        mean, target = moments.mean[number], moments.target_mean[number]
        products, cross = moments.products[number] / moments.count, moments.cross[number] / moments.count
        if not offset:
            products, cross = products + torch.outer(mean, mean), cross + torch.outer(target, mean)
        products, cross, old = products[stay][:, stay], cross[:, stay], weight[rows][:, stay]
        penalty = ridge * float(products.diagonal().mean()) if ridge is not None and len(products) else 0.0
        if penalty > 0:  # else nothing varies, and nothing can be fitted
            left = products + penalty * torch.eye(len(products), dtype=weight.dtype, device=weight.device)
            old = torch.linalg.solve(left, (cross + penalty * old).T).T
            weight[rows[:, None], stay.nonzero().flatten()] = old
        shift[rows] = target - old @ mean[stay]
    return weight, shift


__all__ = ["refit", "solve"]
