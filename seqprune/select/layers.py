"""Which layers to prune when none are named."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from seqprune.errors import InputError


def block_of(name: str) -> int | None:
    """Index of the top-level module a layer lies in: ``model.5.cv1.conv`` → 5; ``None`` where there is none."""
    found = re.match(r"(?:[A-Za-z_]\w*\.)?(\d+)(?:\.|$)", name)
    return int(found[1]) if found else None


def choose_layers(candidates: Sequence[tuple[str, int]], blocks: Iterable[int], count: int) -> list[str]:
    """The layers with the most channels, each from another block while there are blocks left.

    Args:
        candidates: (module path, output channels), front to back.
        blocks: block indices to choose from.
        count: how many layers; once every block has given one, blocks give their next widest.

    Returns:
        Module paths, front to back. Ties go to the layer nearer to the front.

    Raises:
        InputError: a block without a candidate, or fewer candidates than asked for.
    """
    blocks = list(dict.fromkeys(blocks))
    by_block: dict[int, list[tuple[str, int]]] = {block: [] for block in blocks}
    for name, channels in candidates:
        block = block_of(name)
        if block in by_block:
            by_block[block].append((name, channels))
    empty = [str(block) for block, found in by_block.items() if not found]
    total = sum(map(len, by_block.values()))
    if len(empty) == len(blocks):
        raise InputError(f"no prunable convolution in block {', '.join(empty)}: `seqprune inspect` lists the layers")
    if not 1 <= count <= total:
        raise InputError(
            f"{count} layers asked for, blocks {_ranges(blocks)} have {total}: choose other blocks or numbers"
        )
    position = {name: at for at, (name, _) in enumerate(candidates)}
    # By rounds: the widest layer of every block, then the second widest of every block, and so on.
    ranked = [
        (rank, -channels, position[name], name)
        for found in by_block.values()
        for rank, (name, channels) in enumerate(sorted(found, key=lambda c: (-c[1], position[c[0]])))
    ]
    return sorted((name for *_, name in sorted(ranked)[:count]), key=position.__getitem__)


def parse_blocks(text: str) -> tuple[int, ...]:
    """``"1-5"``, ``"3"`` and ``"1-3,6,8-9"`` to block indices.

    Raises:
        InputError: the text says anything else.
    """
    blocks: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d{1,5})\s*(?:-\s*(\d{1,5})\s*)?", part)
        if not found or (found[2] and int(found[2]) < int(found[1])):
            raise InputError(f"{text!r} names no blocks: write 1-5, 3 or 1-3,6")
        blocks += range(int(found[1]), int(found[2] or found[1]) + 1)
    return tuple(dict.fromkeys(blocks))


def _ranges(blocks: Sequence[int]) -> str:
    return ", ".join(map(str, blocks))
