"""Calls that are handed ``c // groups``, as they would be without it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from seqprune.graph.counts import Count, Part, is_count, is_part, sizes_of, without_counts
from seqprune.graph.recorder import Recorder

Call = tuple[str, Sequence[Any], Mapping[str, Any]]


def without_parts(
    r: Recorder, counts: Sequence[Count], name: str, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Call:
    """A call that is handed ``counts``, so that it says the same for any number of channels; else these are used.

    A shape with ``c // groups`` is one with -1, while ``c`` are as many as the channels viewed, or as each third
    of them, as of queries, keys and values in one; ``split(c // groups)`` is ``chunk(groups)``. Slices keep theirs.
    """
    parts = list(filter(is_part, counts))
    if not parts:
        return name, args, kwargs
    said = _without(r, name, args, kwargs, parts[0]) if args and len(parts) == 1 else None
    if said is not None:
        return said
    for count in counts:
        count.use()
    return (name, *without_counts((args, kwargs)))


def _without(r: Recorder, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], part: Part) -> Call | None:
    if name == "getitem":
        return name, args, kwargs  # its rule looks for slices
    value, counted = r.value(args[0]), part.channels
    channels = None if value is None else value.atoms
    if channels is None or len(channels) % len(counted):
        return None
    if name == "split":
        whole = args[1] is part and not kwargs.keys() - {"dim"} and np.array_equal(channels, counted)
        return ("chunk", (args[0], part.parts, *args[2:]), kwargs) if whole else None
    shape = sizes_of(args[1:])
    if name not in ("view", "reshape") or kwargs or any(map(_left_over, shape)):
        return None
    for section in np.split(channels, len(channels) // len(counted)):
        r.counts_agree(section, counted, r.module)
    return name, (args[0], *(-1 if size is part else size for size in shape)), kwargs


def _left_over(size: Any) -> bool:
    return not (is_count(size) or is_part(size)) and size < 0
