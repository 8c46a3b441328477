"""One forward pass for all layers: front to back, everything before the layer at hand is final.

Of every batch the outputs of blocks that are still to be read are kept. Observing a layer advances each batch to the
layer's block, through blocks that are pruned already and will not change any more, and runs that block alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from seqprune.observe.batch import Batch, LabelledImages, as_input
from seqprune.select.layers import block_of

IMAGE = -1
"""Index of the network's input among the sources of a block."""
CACHE_BYTES = 4 << 30


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

    def last_use(self) -> dict[int, int]:
        """By block, the last block that reads it."""
        return {source: block for block, sources in enumerate(self.sources) for source in sources}

    def run(self, model: nn.Module, block: int, live: dict[int, torch.Tensor]) -> torch.Tensor:
        inputs = [live[source] for source in self.sources[block]]
        module = model.get_submodule(f"{self.path}.{block}")
        output: torch.Tensor = module(inputs if self.lists[block] else inputs[0])
        return output


@dataclass
class _Position:
    """Where one batch stands: the next block to run, and the outputs that are still to be read."""

    batch: Batch
    next: int
    live: dict[int, torch.Tensor] = field(repr=False)

    def bytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in self.live.values())


class BlockStream:
    """Gives every step its forward passes from where the last step left off.

    Falls back to whole passes, and says so, where the outputs to keep outgrow the budget.

    Args:
        blocks: the network's structure.
        images: labelled images, decoded once.
        cache_bytes: memory for outputs that are kept, on the model's device.
        warn: told when the budget does not suffice.
    """

    def __init__(
        self,
        blocks: Blocks,
        images: LabelledImages,
        cache_bytes: int = CACHE_BYTES,
        warn: Callable[[str], None] = lambda _text: None,
    ) -> None:
        self.blocks, self.images, self.cache_bytes, self.warn = blocks, images, cache_bytes, warn
        self._last_use = blocks.last_use()
        self._positions: list[_Position] | None = None
        self._kept = 0
        self._outgrown = False

    def reset(self) -> None:
        """Forgets everything: weights changed in blocks that were passed already."""
        self._positions = None
        self._kept = 0

    def passes(self, model: nn.Module, layers: Sequence[str]) -> Iterator[tuple[Batch, Callable[[], object]]]:
        """Every batch, its images without pixels, with a function that runs ``model`` through ``layers``."""
        wanted = [block for name in layers if (block := block_of(name)) is not None]
        first, last = min(wanted), max(wanted)
        if self._positions is not None and any(p.next > first for p in self._positions):
            self.reset()
        positions = self._fresh(model) if self._positions is None else iter(self._positions)
        held: list[_Position] = []
        for position in positions:
            yield position.batch, self._runner(model, position, first, last)
            if not self._outgrown:
                held.append(position)
        self._positions = None if self._outgrown else held

    def _fresh(self, model: nn.Module) -> Iterator[_Position]:
        for batch in self.images:
            without = Batch(batch.images[:, :0].clone(), batch.image_index, batch.classes, batch.boxes)
            position = _Position(without, 0, {IMAGE: as_input(batch.images, model)})
            self._kept += position.bytes()
            yield position

    def _runner(self, model: nn.Module, position: _Position, first: int, last: int) -> Callable[[], object]:
        def run() -> None:
            before = position.bytes()
            self._advance(model, position, first)
            self._kept += position.bytes() - before
            if self._kept > self.cache_bytes and not self._outgrown:
                self._outgrown = True
                self.warn(
                    f"block outputs outgrow {self.cache_bytes:,} bytes: every step runs the network from the start"
                )
            here = _Position(position.batch, position.next, dict(position.live))
            self._advance(model, here, last + 1)

        return run

    def _advance(self, model: nn.Module, position: _Position, block: int) -> None:
        """Runs blocks up to ``block``, itself left out, and drops outputs that nothing reads any more."""
        while position.next < block:
            position.live[position.next] = self.blocks.run(model, position.next, position.live)
            position.next += 1
            for source in [s for s in position.live if self._last_use.get(s, s) < position.next]:
                del position.live[source]
