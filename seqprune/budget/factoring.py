"""A network's k×k convolutions as pairs, to a target: where they pay most, and everything fitted anew.

Every block that can be factored has a curve of loss over cost, from one pass of second moments; one price of a cost
decides all of them (:mod:`seqprune.budget.factor_curves`). Errors are weighed as the choice of channels weighs them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from torch import nn

from seqprune.budget.cost import gflops, parameters
from seqprune.budget.factor_curves import STEPS, Chosen, Curve, cheapest, curve, pair, saved
from seqprune.budget.importance import importance_of_layers, variances
from seqprune.budget.meet import meet
from seqprune.budget.price import operations
from seqprune.budget.second_order import scaled_weight
from seqprune.budget.target import Target
from seqprune.budget.timed import STEP, Times, times_of
from seqprune.errors import TargetError
from seqprune.graph.factor import Factor, First, Weights, aligned, factorable, factored
from seqprune.observe.batch import LabelledImages
from seqprune.observe.extract import Progress
from seqprune.observe.forward import Forward
from seqprune.observe.inputs import Inputs
from seqprune.observe.patches import Sampler
from seqprune.observe.ranks import ALONE, Ranks
from seqprune.observe.reading import Reading
from seqprune.observe.relevance import Relevance
from seqprune.observe.sources import second_moments
from seqprune.runtimes.layers import Timing

WAYS: tuple[First, ...] = ("column", "row")
LEAST_SCALE = 1e-3
"""Of the largest in its layer: an output whose errors do not matter is still fitted."""


@dataclass(frozen=True)
class Factored:
    """
    Attributes:
        reference: the network as it was, its modules named as those of ``model``.
        model: with some convolutions as pairs.
        factors: which.
        relevance: by the names of both.
    """

    reference: nn.Module
    model: nn.Module
    factors: tuple[Factor, ...]
    relevance: Relevance | None


@dataclass(frozen=True)
class Factoring:
    """What a network's convolutions lose as pairs, and what they are made from.

    Attributes:
        model: the unpruned network.
        kind: what is counted: ``params``, or operations for everything else that is not timed.
        curves: by block, ways of making it of two.
        patches: by block, ``[K, K]`` covariance of what its convolution reads.
        scales: by block, ``[outputs]``, what an error in each output matters.
        relevance: of the images.
        timing, times: where time is the cost, what measures it, and what it found of the layers.
    """

    model: nn.Module
    kind: str
    curves: Mapping[str, Sequence[Curve]]
    patches: Mapping[str, torch.Tensor]
    scales: Mapping[str, torch.Tensor]
    relevance: Relevance | None
    timing: Timing | None = None
    times: Times | None = None

    def share(self, inputs: Inputs) -> float:
        """Of the network's cost, what the convolutions take that may be pairs."""
        return sum(ways[0].whole for ways in self.curves.values()) / self._whole(inputs)

    def to_target(
        self, target: Target, inputs: Inputs, step: int, nearest: bool = False, ranks: Ranks = ALONE
    ) -> Factored:
        """The network as near below a target as steps of ``step`` channels let it be.

        Args:
            target: what stays, of what the curves count.
            inputs: what operations are counted at.
            step: channels between are a multiple of it.
            nearest: go as far as factors can where they cannot go all the way.
            ranks: processes that come to the same; the first of them decides.

        Raises:
            TargetError: the target cannot be met by factors alone.
        """
        factors, weights = ranks.first(partial(self._decided, target, inputs, step, nearest))
        model = factored(self.model, factors, weights)
        return Factored(aligned(self.model, factors), model, factors, _renamed(self.relevance, factors, self.model))

    def _decided(
        self, target: Target, inputs: Inputs, step: int, nearest: bool
    ) -> tuple[tuple[Factor, ...], dict[str, Weights]]:
        """Which convolutions are made of two, and of what."""
        timing, whole = self.timing, self._whole(inputs)
        step = step if self.times is None else max(step, STEP)

        def choose(share: float) -> Chosen:
            found = cheapest(self.curves, lambda each: whole - saved(each) <= share * whole, step, nearest=nearest)
            if found is None:
                raise TargetError(
                    f"factors alone do not bring this network to {target.kind}={target.share:g}: let channels go too, "
                    "take a greater target or protect less"
                )
            return found

        if timing is None:
            chosen = choose(target.share)
        else:

            def left(found: Chosen) -> float:
                return timing.share(self.model, factored(self.model, *self._made(found, 0)))

            chosen = meet(choose, left, target.share, nearest=nearest)
        return self._made(chosen)

    def _whole(self, inputs: Inputs) -> float:
        """Cost of the network, in what the curves count."""
        if self.times is not None:
            return self.times.whole
        return parameters(self.model) if self.kind == "params" else 1e9 * gflops(self.model, inputs) / 2

    def _made(self, chosen: Chosen, steps: int = STEPS) -> tuple[tuple[Factor, ...], dict[str, Weights]]:
        blocks = factorable(self.model)
        factors, weights = [], {}
        for block, (way, rank) in chosen.items():
            conv = cast(nn.Conv2d, self.model.get_submodule(blocks[block]))
            about = (conv.weight.cpu(), self.patches[block], self.scales[block], way, rank)
            weights[block], _ = pair(*about, steps)
            factors.append(Factor(block, way.first, rank))
        return tuple(factors), weights


def share_left(model: nn.Module, smaller: nn.Module, kind: str, inputs: Inputs, timing: Timing | None = None) -> float:
    """What share of its parameters, operations or, measured by ``timing``, time a network has in another."""
    if timing is not None:
        return timing.share(model, smaller)
    if kind == "params":
        return parameters(smaller) / parameters(model)
    return gflops(smaller, inputs) / gflops(model, inputs)


def observe(
    model: nn.Module,
    images: LabelledImages,
    kind: str,
    inputs: Inputs,
    reading: Reading,
    *,
    protect: Sequence[str] = (),
    relevance: Relevance | None = None,
    forward: Forward | None = None,
    progress: Progress | None = None,
    timing: Timing | None = None,
    ranks: Ranks = ALONE,
) -> Factoring:
    """One pass over the images.

    Args:
        model: the unpruned network, in inference mode.
        images: calibration images.
        kind: what is counted: ``params``, or operations for everything else.
        inputs: what operations are counted at.
        reading: which layers can be read, and what follows them.
        protect: module paths in which nothing is factored.
        relevance: where errors matter, from the same images. All are alike without it.
        forward: precision, and how many images at a time.
        progress: told the number of images of every batch.
        timing: measures, where time is the cost, in the first process.
        ranks: the processes that share the images; all return the same.
    """
    names = [name for name in reading.names if getattr(model.get_submodule(name), "groups", 1) == 1]
    moments, leader = second_moments(model, names, images, Sampler(), progress, forward, relevance, ranks)
    covariances = {name: (seen.products[0] / seen.count).cpu() for name, seen in moments.items()}
    read = {name: covariances[leader[name]] for name in names if name in leader}
    known = relevance or Relevance()
    varies = {name: variances(model, name, covariance) for name, covariance in read.items()}
    importance = importance_of_layers(varies, known.curvature)
    uses = None if kind == "params" else operations(model, inputs)
    pairs = factorable(model)
    times = None if timing is None else ranks.first(partial(times_of, model, inputs, timing, list(pairs.values())))
    spared = tuple(f"{path.rstrip('.')}." for path in protect)
    curves, patches, scales = {}, {}, {}
    for block, name in pairs.items():
        if name not in read or f"{name}.".startswith(spared):
            continue
        conv = cast(nn.Conv2d, model.get_submodule(name))
        patches[block] = read[name]
        scale = reading.unit(name).affine(model, name)[0].cpu()[:, None]
        weight = scaled_weight(model, name, scale, varies[name], importance[name], known.slope.get(name))
        scales[block] = _scale(conv, weight)
        about = (conv.weight.cpu(), read[name], scales[block])
        if times is None:
            used = None if uses is None else uses[name]
            curves[block] = [curve(*about, way, *_costs(conv, way, used)) for way in WAYS]
        else:
            lines = [times.pairs[name, way] for way in WAYS]
            curves[block] = [
                curve(*about, way, times.alone[name], line.each, line.base)
                for way, line in zip(WAYS, lines, strict=True)
            ]
    return Factoring(model, kind, curves, patches, scales, relevance, timing, times)


def _scale(conv: nn.Conv2d, scaled: torch.Tensor) -> torch.Tensor:
    """``[outputs]``, what the rows of a weight were multiplied with."""
    found = scaled.norm(dim=1) / conv.weight.detach().double().cpu().flatten(1).norm(dim=1).clamp(min=1e-30)
    most = float(found.max())
    return found.clamp(min=LEAST_SCALE * most) if most > 0 else torch.ones_like(found)


def _costs(conv: nn.Conv2d, first: First, uses: float | None) -> tuple[float, float]:
    """Of the convolution as it is, and of every channel between its factors; ``uses`` is how often a weight is used,
    ``None`` where weights are counted. The first of two leaves one of both strides to the second.
    """
    (height, width), (down, along) = conv.kernel_size, conv.stride
    if first == "row":
        height, width, along = width, height, down
    before = along if uses is not None else 1
    times = 1.0 if uses is None else uses
    whole = times * conv.weight.numel()
    return whole, times * (before * height * conv.in_channels + width * conv.out_channels)


def _renamed(relevance: Relevance | None, factors: Sequence[Factor], model: nn.Module) -> Relevance | None:
    """With the names that convolutions have in the factored network."""
    if relevance is None:
        return None
    blocks = factorable(model)
    names = {blocks[f.block]: f"{f.block}.1.{blocks[f.block].removeprefix(f.block + '.')}" for f in factors}
    return Relevance(
        {names.get(name, name): value for name, value in relevance.curvature.items()},
        {names.get(name, name): value for name, value in relevance.slope.items()},
        {(number, names.get(name, name)): drawn for (number, name), drawn in relevance.drawn.items()},
    )
