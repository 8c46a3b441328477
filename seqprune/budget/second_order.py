"""The whole network to a budget: channels leave where it costs least for what it saves, and the rest is fitted anew."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import nn

from seqprune.budget.columns import Reader, Source
from seqprune.budget.criteria import Readings
from seqprune.budget.importance import importance_of_layers, variances
from seqprune.budget.price import Price
from seqprune.budget.spread import Budget, Meet, prefix_met, protected
from seqprune.budget.surgeon import removal_order
from seqprune.graph.channels import BoolArray, ChannelGraph, IntArray, Slice
from seqprune.observe.batch import LabelledImages
from seqprune.observe.extract import Progress
from seqprune.observe.forward import Forward
from seqprune.observe.maps import taps, weight_rows
from seqprune.observe.patches import Sampler
from seqprune.observe.ranks import ALONE, Ranks
from seqprune.observe.reading import Reading, reading_of
from seqprune.observe.relevance import Relevance
from seqprune.observe.sources import second_moments

TINY = 1e-30


def choose_globally(
    model: nn.Module,
    graph: ChannelGraph,
    images: LabelledImages,
    price: Price,
    budget: Budget,
    *,
    sampler: Sampler | None = None,
    forward: Forward | None = None,
    progress: Progress | None = None,
    share: Callable[[BoolArray], float] | None = None,
    meet: Meet | None = None,
    relevance: Relevance | None = None,
    reading: Reading | None = None,
    ranks: Ranks = ALONE,
) -> BoolArray:
    """The channel groups to remove, ``[group_count]``: legal, rounded, less than a step below the target.

    Args:
        model: the unpruned network, in inference mode.
        graph: its channel graph.
        images: calibration images.
        price: what is counted.
        budget: how far to go.
        sampler: which positions are looked at.
        forward: precision, and how many images at a time.
        progress: told the number of images of every batch.
        share: what of the whole stays, where something else is meant to meet the target than the price.
        meet: finds what meets the target among what is removed for a share; by the price alone where left out.
        relevance: where errors matter, and in which layers, from the same images. All are alike without it.
        reading: which layers can be read; looked at on the first image where it is left out.
        ranks: the processes that share the images; the first chooses for all.

    Raises:
        InputError: nothing of that path to protect, or the target cannot be met.
    """
    sources, known = _sources(model, graph, images, sampler or Sampler(), forward, progress, relevance, reading, ranks)
    free = known & ~graph.pinned & ~protected(graph, budget.protect)
    giving = graph.giving(np.zeros(graph.group_count), free)  # all alike

    def far_enough(gone: BoolArray) -> bool:
        # Rounding gives channels back, so the order goes on until the target is met without them.
        if meet is not None or price.share(gone) > budget.target:
            return False
        return price.share(giving.legal(gone, budget.round_to)) <= budget.target

    def choose() -> BoolArray:
        order = removal_order(
            _given_up(sources),
            free,
            graph.balances,
            tuple(layer.groups for layer in graph.all_layers),
            price.savings,
            far_enough,
            floor=budget.floor,
            ridge=budget.ridge,
        )
        return prefix_met(graph, share or price.share, [unit.groups for unit in order], free, budget, meet)

    return ranks.first(choose)


def _given_up(sources: list[Source]) -> Iterator[Source]:
    """One after the other, none kept: of a large network they take gigabytes, and what is made of them as many."""
    while sources:
        yield sources.pop(0)


def _sources(
    model: nn.Module,
    graph: ChannelGraph,
    images: LabelledImages,
    sampler: Sampler,
    forward: Forward | None,
    progress: Progress | None,
    relevance: Relevance | None,
    reading: Reading | None,
    ranks: Ranks = ALONE,
) -> tuple[list[Source], BoolArray]:
    """What every layer reads, and the groups all of whose readers are known."""
    reading = reading or reading_of(model, next(iter(images)))
    inputs, outputs = graph.weight_inputs, graph.weight_outputs
    names = [name for name in inputs if name in reading.names and _in_its_groups(model, name, inputs[name])]
    moments, leader = second_moments(model, names, images, sampler, progress, forward, relevance, ranks)
    names = [name for name in names if name in leader]
    known = np.ones(graph.group_count, bool)
    for cut in graph.slices:
        if cut.dead is None and cut.module not in names and _reads(model, graph, cut):
            known[cut.groups.ravel()] = False
    covariances = {name: seen.products.div_(seen.count) for name, seen in moments.items()}
    read = {name: covariances[leader[name]] for name in names}
    relevance = relevance or Relevance()
    varies = {name: variances(model, name, covariance) for name, covariance in read.items()}
    importance = importance_of_layers(varies, relevance.curvature, together=relevance.together)
    samples = relevance.samples()
    readers: dict[str, list[Reader]] = {}
    for name in names:
        scale = reading.unit(name).affine(model, name)[0].cpu()[:, None]
        about = (importance[name], relevance.slope.get(name), relevance.together.get(name))
        weight = scaled_weight(model, name, scale, varies[name], *about)
        places = taps(model.get_submodule(name))  # of a transposed convolution every one in a block has rows
        groups = np.repeat(outputs[name], places)
        readers.setdefault(leader[name], []).append(Reader(weight, groups, samples.get(name, math.inf)))
    return [each for name, found in readers.items() for each in _split(covariances[name], inputs[name], found)], known


def _in_its_groups(model: nn.Module, name: str, inputs: IntArray) -> bool:
    """Whether the channels lie in its weight as it reads them: of one that several share it may be another's way."""
    return len(np.atleast_2d(inputs)) == getattr(model.get_submodule(name), "groups", 1)


def _reads(model: nn.Module, graph: ChannelGraph, cut: Slice) -> bool:
    """Whether what is cut weighs channels against each other; a PReLU has a number for each, and reads none."""
    tensor = getattr(model.get_submodule(cut.module), cut.tensor)
    return cut.module in graph.by_name or tensor.numel() > tensor.shape[cut.dim]


def _split(covariances: torch.Tensor, inputs: IntArray, readers: list[Reader]) -> Iterator[Source]:
    """One source for each group of the convolutions that read ``covariances``, ``[groups, K, K]``."""
    count = len(covariances)
    parts = [
        [
            Reader(weight, groups, each.samples)
            for weight, groups in zip(each.weight.chunk(count), np.split(each.groups, count), strict=True)
        ]
        for each in readers
    ]
    for covariance, channels, *found in zip(covariances, np.atleast_2d(inputs), *parts, strict=True):
        yield Source(covariance, channels, tuple(found))


def scaled_weight(
    model: nn.Module,
    name: str,
    scale: torch.Tensor,
    varies: torch.Tensor,
    importance: float,
    slope: torch.Tensor | None = None,
    together: torch.Tensor | None = None,
) -> torch.Tensor:
    """``[outputs, K]`` float64: rows as BatchNorm and activation behind scale them, of total variance ``importance``.

    On the device of ``varies``, ``[outputs]``, the variances as the rows are. ``scale`` is ``[outputs, 1]``, what the
    BatchNorm multiplies with. ``slope`` is ``[outputs]``, the mean squared derivative of the activation. Where it is
    known what each output costs as a whole, ``together`` ``[outputs]``, rows are of that variance instead.
    """
    factor = scale.to(varies)[:, 0]
    if slope is not None:
        factor = factor * slope.to(varies).sqrt()
    variance = factor.square() * varies
    if together is not None:
        factor = factor * (together.to(varies) / variance.clamp(min=TINY)).sqrt()
        variance = together.to(varies)
    total = float(variance.sum())
    factor = factor * (importance / total) ** 0.5 if total > 0 else factor * 0
    return factor[:, None] * weight_rows(model.get_submodule(name)).to(varies)


def readings_of(model: nn.Module, graph: ChannelGraph, images: LabelledImages) -> Readings:
    """What every convolution reads, for the criterion ``obs``; all layers' errors count alike."""
    sources, known = _sources(model, graph, images, Sampler(), None, None, None, None)
    return Readings(tuple(sources), known)
