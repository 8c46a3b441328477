"""Second moments of what every convolution of a network reads, all of them from one pass over the images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from seqprune.observe.batch import Batch, LabelledImages
from seqprune.observe.extract import Progress
from seqprune.observe.forward import Forward, Once
from seqprune.observe.maps import TRANSPOSED, map_size
from seqprune.observe.patches import Drawn, Sampler, SecondMoments, patches
from seqprune.observe.ranks import ALONE, Pieces, Ranks
from seqprune.observe.relevance import Relevance
from seqprune.observe.watching import watching

GEOMETRY = ("kernel_size", "stride", "padding", "dilation", "groups")


class Places:
    """The sampled positions of one batch: those drawn by relevance, else drawn once for each size of map."""

    def __init__(self, sampler: Sampler, batch: Batch, relevance: Relevance | None = None) -> None:
        self.sampler, self.batch, self.relevance = sampler, batch, relevance
        self._drawn: dict[tuple[int, int], Drawn] = {}

    def of(self, name: str, hw: tuple[int, int], part: slice) -> Drawn:
        """On the map of ``hw`` cells that the layer ``name`` made of the images ``part``."""
        known = None if self.relevance is None else self.relevance.drawn.get((self.batch.number, name))
        if known is None and hw not in self._drawn:
            self._drawn[hw] = self.sampler.draw(self.batch, hw)
        return (known or self._drawn[hw]).part(part)


def second_moments(
    model: nn.Module,
    names: Sequence[str],
    images: LabelledImages,
    sampler: Sampler,
    progress: Progress | None = None,
    forward: Forward | None = None,
    relevance: Relevance | None = None,
    ranks: Ranks = ALONE,
) -> tuple[dict[str, SecondMoments], dict[str, str]]:
    """Of the input patches of the convolutions ``names``; ``ranks`` share the images, and all return the same.

    Returns:
        The moments by name, and for every name the one that holds them: convolutions that read the same tensor in the
        same way share theirs. Those that no image reaches are in neither.
    """
    forward = forward or Forward()
    device = next(model.parameters()).device
    leader = _leaders(model, names, next(iter(images)))
    leaders = [name for name in names if leader.get(name) == name]
    found = {name: SecondMoments() for number, name in enumerate(leaders) if ranks.owns(number)}

    def put(name: str, count: float, *parts: torch.Tensor) -> None:
        # Products were taken in float32, and travel so: they are fewer numbers than the patches they are made of.
        found[name].merge(SecondMoments(count, *(part.to(device).double() for part in parts)))

    pieces = Pieces(ranks, put, {name: number for number, name in enumerate(leaders)})
    for batch in ranks.rounds(images):
        if batch is None:
            pieces.settle()
            continue
        places, once = Places(sampler, batch, relevance), Once()

        def run(part: slice, batch: Batch = batch, places: Places = places, once: Once = once) -> None:
            turns: Counter[str] = Counter()

            def look(name: str, layer: nn.Module, x: torch.Tensor, output: torch.Tensor) -> None:
                def add() -> None:
                    drawn = places.of(name, map_size(layer, output), part)
                    seen = patches(layer, x, drawn.where, output)
                    more = found[name] if ranks.count == 1 else SecondMoments()
                    more.update(seen, seen[:, :, :0], drawn.weight)
                    if ranks.count == 1:
                        return
                    pieces.add(name, more.count, more.mean, more.products.float(), more.target_mean, more.cross)

                turns[name] += 1
                once((name, turns[name]), part, add)

            with watching(model, leaders, look):
                batch.run(model, part)

        forward(batch.count, device, run)
        pieces.settle()
        if progress is not None:
            progress(batch.count * ranks.count)  # the others are about as far
    found = ranks.joined(found)
    return {name: found[name].finite(name) for name in leaders}, leader


def _leaders(model: nn.Module, names: Sequence[str], batch: Batch) -> dict[str, str]:
    """By convolution, the first that reads the same tensor with the same geometry."""
    first: dict[Any, str] = {}
    leader: dict[str, str] = {}
    alive = []  # or a later tensor could be made in the place of an earlier one

    def look(name: str, layer: nn.Module, x: torch.Tensor, _output: torch.Tensor) -> None:
        alive.append(x)
        key = (id(x), isinstance(layer, TRANSPOSED), *(getattr(layer, each, None) for each in GEOMETRY))
        leader[name] = first.setdefault(key, name)

    with torch.no_grad(), watching(model, names, look):
        batch.run(model, slice(1))
    return leader
