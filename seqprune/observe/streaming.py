"""One forward pass for all layers: front to back, everything before the layer at hand is final.

Of every batch the outputs of blocks that are still to be read are kept. Observing a layer advances each batch to the
layer's block, through blocks that are pruned already and will not change any more, and runs that block alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Protocol

import torch
from torch import nn

from seqprune.observe.batch import Batch, LabelledImages
from seqprune.observe.forward import Forward
from seqprune.observe.inputs import as_input
from seqprune.observe.lanes import Lanes
from seqprune.observe.shelf import CACHE_BYTES, Kept, Outputs, Shelf
from seqprune.select.layers import block_of

IMAGE = -1
"""Index of the network's input among the sources of a block."""
STEM = 2
"""Outputs of the first blocks are several times as large as the images; where memory is short, these blocks are run
again from the images instead."""


class Structure(Protocol):
    """In which order the parts of a network run, and how to go on from the middle.

    Attributes:
        keeps_inputs: whether images are asked for behind the first block; else they are what the first ones read.
    """

    @property
    def keeps_inputs(self) -> bool: ...

    def block_of(self, layer: str) -> int | None:
        """The block that a layer lies in; blocks run in the order of their numbers."""

    def advance(
        self, model: nn.Module, start: int, stop: int, live: Outputs, batch: Batch, part: slice | None = None
    ) -> Outputs:
        """Runs blocks ``start`` to ``stop - 1``.

        Args:
            model: the network, or a copy of it.
            start, stop: numbers of blocks.
            live: by block, what it returned for some images, as far as it is read from ``start`` on; changed.
            batch: of which these are some.
            part: which images; all where it is left out.

        Returns:
            What is read from ``stop`` on.
        """


@dataclass(frozen=True)
class Blocks:
    """A network as numbered blocks that read the image or earlier blocks.

    Attributes:
        path: module path of the list of blocks; block ``i`` is ``path.i``.
        sources: what each block reads: ``IMAGE`` or indices of earlier blocks.
        lists: whether each block takes its inputs as a list, as a concatenation does.
    """

    path: str
    sources: tuple[tuple[int, ...], ...]
    lists: tuple[bool, ...]

    keeps_inputs: bool = field(default=False, init=False)

    def block_of(self, layer: str) -> int | None:
        return block_of(layer)

    @cached_property
    def last_use(self) -> dict[int, int]:
        """By block, the last block that reads it."""
        return {source: block for block, sources in enumerate(self.sources) for source in sources}

    def advance(
        self, model: nn.Module, start: int, stop: int, live: Outputs, _batch: Batch, _part: slice | None = None
    ) -> Outputs:
        if start == 0:
            live[IMAGE] = as_input(live[IMAGE], model)
        for block in range(start, stop):
            inputs = [live[source] for source in self.sources[block]]
            module = model.get_submodule(f"{self.path}.{block}")
            live[block] = module(inputs if self.lists[block] else inputs[0])
            for source in [s for s in live if self.last_use.get(s, s) <= block]:
                del live[source]
        return live


class Run(Protocol):
    """Runs a part of a batch."""

    def __call__(self, part: slice, lane: nn.Module | None = None) -> object: ...


@dataclass(frozen=True)
class Pass:
    """One batch and the way of running it.

    Attributes:
        batch: its objects; the images may have lost their pixels, not their size.
        images: how many there are.
        ready: brings the batch to where the pass begins and returns what runs a part of its images from there, through
            the network of the pass or through its copy in a lane.
    """

    batch: Batch
    images: int
    ready: Callable[[], Run]


@dataclass
class _Position:
    """Where one batch stands: the next block to run, and the outputs that are still to be read."""

    next: int
    kept: Kept


class BlockStream:
    """Gives every step its forward passes from where the last step left off.

    Falls back to whole passes, and says so, where neither memory nor disk can hold the outputs to keep.

    Args:
        blocks: the network's structure.
        cache_bytes: memory for outputs that are kept; what outgrows it goes to disk.
        half: keep them in half precision.
        warn: told when a place is full.
    """

    def __init__(
        self,
        blocks: Structure,
        cache_bytes: int = CACHE_BYTES,
        half: bool = False,
        warn: Callable[[str], None] = lambda _text: None,
    ) -> None:
        self.blocks, self.warn = blocks, warn
        self.shelf = Shelf(cache_bytes, half, warn)
        self._positions: list[_Position] | None = None
        self._outgrown = False

    def reset(self) -> None:
        """Forgets everything: weights changed in blocks that were passed already, or the run is over."""
        self._positions = None
        self.shelf.clear()

    def passes(
        self,
        model: nn.Module,
        layers: Sequence[str],
        images: LabelledImages,
        forward: Forward | None = None,
        lanes: Lanes | None = None,
    ) -> Iterator[Pass]:
        """Every batch with what runs ``model`` through ``layers``; brought there in ``lanes`` where they are given."""
        wanted = [block for name in layers if (block := self.blocks.block_of(name)) is not None]
        first, last = min(wanted), max(wanted)
        forward = forward or Forward()
        known, self._positions = self._positions, None  # a pass that is left early leaves nothing to go on from
        if known is None or self._outgrown or any(p.next > first for p in known):
            self.shelf.clear()
            known = None
        held: list[_Position] = []
        for position in self._fresh(images) if known is None else known:
            if isinstance(position, Batch):
                live = {} if self.blocks.keeps_inputs else {IMAGE: position.images}
                run = partial(self._advance, model, 0, last + 1, live, position)
                yield Pass(position, position.count, lambda run=run: run)  # type: ignore[misc]
            else:
                batch = self.shelf.objects(position.kept)
                ready = partial(self._ready, model, position, batch, first, last, lanes or forward)
                yield Pass(batch, position.kept.images, ready)
                held.append(position)
        self._positions = None if self._outgrown else held

    def _fresh(self, images: LabelledImages) -> Iterator[_Position | Batch]:
        for batch in images:
            without, live = batch, {}
            if not self.blocks.keeps_inputs:
                without, live = replace(batch, images=batch.images[:, :0].clone()), {IMAGE: batch.images}
            kept = None if self._outgrown else self.shelf.put(live, without)
            if kept is None:
                self._give_up()
                yield batch
            else:
                yield _Position(0, kept)

    def _give_up(self) -> None:
        if not self._outgrown:
            self._outgrown = True
            self.warn("neither memory nor disk holds the block outputs: every step runs the network from the start")

    def _ready(
        self, model: nn.Module, position: _Position, batch: Batch, first: int, last: int, runs: Forward | Lanes
    ) -> Run:
        device = next(model.parameters()).device
        live = self.shelf.read(position.kept, device)
        if position.next < first:
            advance = partial(self._advance, model, position.next, first, live, batch)
            if isinstance(runs, Lanes):
                parts = runs(batch.images, lambda lane, part: advance(part, lane))
            else:
                parts = runs(position.kept.images, device, advance)
            live = {source: torch.cat([part[source] for part in parts]) for source in parts[0]}
            self._keep(position, batch, first, live)
        return partial(self._advance, model, first, last + 1, live, batch)

    def _keep(self, position: _Position, batch: Batch, block: int, live: Outputs) -> None:
        """Puts a batch down in front of ``block``, or leaves it where it stands if running to there is cheaper."""
        again = position.next == 0 and block <= STEM
        kept = self.shelf.put(live, batch, disk=not again)
        if kept is not None:
            self.shelf.drop(position.kept)
            position.next, position.kept = block, kept
        elif not again:
            self._give_up()

    def _advance(
        self,
        model: nn.Module,
        start: int,
        stop: int,
        live: Outputs,
        batch: Batch,
        part: slice,
        lane: nn.Module | None = None,
    ) -> Outputs:
        """Runs a part of a batch through blocks ``start`` to ``stop - 1``, dropping what nothing reads any more."""
        live = {source: output[part] for source, output in live.items()}
        return self.blocks.advance(lane or model, start, stop, live, batch, part)


def whole_passes(model: nn.Module, images: LabelledImages) -> Iterator[Pass]:
    """The plain way: every pass from the images."""
    for batch in images:
        yield Pass(batch, batch.count, partial(_from_the_start, model, batch))


def _from_the_start(model: nn.Module, batch: Batch) -> Run:
    return lambda part, lane=None: batch.run(lane or model, part)
