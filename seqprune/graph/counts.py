"""Numbers of channels in the hands of a network's code: free while unused, followed where they are handed on whole.

``b, c, h, w = x.shape`` gives ``c`` as a :class:`Count`. Handed to ``view`` in the channels' place it is followed, and
so is ``c // groups``, a :class:`Part`; compared with another count, both stay equal; anything else that can see the
number pins its channels. A count is no ``int`` in C, so that nothing sees the number unnoticed (``range(c)``, ``0.5 *
c``, ``names[c]``), and is one to ``isinstance``.
"""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeGuard, cast

import numpy as np
import torch
from torch.utils._pytree import tree_map

from seqprune.graph.channels import IntArray
from seqprune.graph.reader import Held, Reader, Source, place
from seqprune.graph.values import LEAVES, leaves_of


class Count:
    """A number of channels. All that can see the number goes through one of the methods below."""

    __slots__ = ("module", "number", "reader", "source")

    def __init__(self, number: int, source: Source, reader: Reader, module: str) -> None:
        self.number, self.source, self.reader, self.module = number, source, reader, module

    __class__ = property(lambda self: int)

    @property
    def channels(self) -> IntArray:
        """Those that are counted, where they are known and not the number that a module holds."""
        return cast(IntArray, self.source).ravel()

    def use(self) -> int:
        """The number, for something that is not followed."""
        self.reader.use(self.source, self.module)
        return self.number

    def __index__(self) -> int:
        self.reader.peek(self, place(sys._getframe(1)))
        return self.number

    def __bool__(self) -> bool:
        return True  # of whatever is pruned one channel stays

    def __getattr__(self, name: str) -> Any:
        if not hasattr(int, name):
            raise AttributeError(name)
        return getattr(self.use(), name)

    def _parts(self, into: Any) -> int:
        """How many equal parts a number makes of the channels; 0 where there would be others, or nothing is known."""
        if type(into) is not int or into < 1 or type(self) is not Count:
            return 0
        return 0 if self.number % into else into

    def __floordiv__(self, other: Any) -> Any:
        parts = self._parts(divisor := plain(other))
        return Part(self, parts) if parts else self.use() // divisor

    def __mod__(self, other: Any) -> Any:
        """Code that asks whether channels can be divided gets the same answer while parts of them lose as many."""
        parts = self._parts(divisor := plain(other))
        if not parts or isinstance(self.source, Held):
            return self.use() % divisor
        first, *others = np.split(self.channels, parts)
        for part in others:
            self.reader.same(first, part, self.module)
        return 0

    def __pow__(self, *others: Any) -> Any:
        return pow(self.use(), *map(plain, others))

    def __rpow__(self, base: Any) -> Any:
        return base ** self.use()

    def __round__(self, *digits: Any) -> int:
        return round(self.use(), *digits)

    def __hash__(self) -> int:
        return hash(self.use())

    def __eq__(self, other: object) -> Any:
        return self._compared(other, operator.eq)

    def __ne__(self, other: object) -> Any:
        return self._compared(other, operator.ne)

    def __lt__(self, other: object) -> Any:
        return self._compared(other, operator.lt)

    def __le__(self, other: object) -> Any:
        return self._compared(other, operator.le)

    def __gt__(self, other: object) -> Any:
        return self._compared(other, operator.gt)

    def __ge__(self, other: object) -> Any:
        return self._compared(other, operator.ge)

    def _compared(self, other: object, ask: Callable[[Any, Any], Any]) -> Any:
        if is_count(other):
            self.reader.same(self.source, other.source, self.module)
        elif not (other is None or (isinstance(other, int | float) and other <= 0)):
            self.use()
        # Every number of channels is above zero: against any other number the answer is always the same.
        return ask(self.number, plain(other, read=False))

    def __reduce_ex__(self, protocol: Any) -> Any:
        return int, (self.use(),)

    def __deepcopy__(self, memo: Any) -> Count:
        return self

    def __copy__(self) -> Count:
        return self

    def __format__(self, spec: str) -> str:
        return format(self.use(), spec)  # the text may be a key, as of a norm for every width


class Part(Count):
    """``c // groups`` without a remainder: what a shape may have in the channels' place; anything else uses them."""

    __slots__ = ("parts",)

    def __init__(self, whole: Count, parts: int) -> None:
        super().__init__(whole.number // parts, whole.source, whole.reader, whole.module)
        self.parts = parts

    @property
    def whole(self) -> int:
        """The number that was divided."""
        return self.number * self.parts

    def __bool__(self) -> bool:
        return bool(self.use())

    def _compared(self, other: object, ask: Callable[[Any, Any], Any]) -> Any:
        return ask(self.use(), plain(other))


def _forward(name: str, function: Callable[..., Any]) -> None:
    setattr(Count, f"__{name}__", lambda self: function(self.use()))


def _both_ways(name: str, function: Callable[[Any, Any], Any]) -> None:
    if f"__{name}__" not in vars(Count):
        setattr(Count, f"__{name}__", lambda self, other: function(self.use(), plain(other)))
    setattr(Count, f"__r{name}__", lambda self, other: function(plain(other), self.use()))


_ALONE: Mapping[str, Callable[..., Any]] = {
    **{"int": int, "float": float, "complex": complex, "str": str, "repr": repr, "abs": abs, "neg": operator.neg},
    **{"pos": operator.pos, "invert": operator.invert, "trunc": math.trunc, "floor": math.floor, "ceil": math.ceil},
}
_WITH_ANOTHER: Mapping[str, Callable[[Any, Any], Any]] = {
    **{"add": operator.add, "sub": operator.sub, "mul": operator.mul, "truediv": operator.truediv, "mod": operator.mod},
    **{"floordiv": operator.floordiv, "divmod": divmod, "lshift": operator.lshift, "rshift": operator.rshift},
    **{"and": operator.and_, "or": operator.or_, "xor": operator.xor, "matmul": operator.matmul},
}
for _name, _function in _ALONE.items():
    _forward(_name, _function)
for _name, _function in _WITH_ANOTHER.items():
    _both_ways(_name, _function)


_KINDS = frozenset((Count, Part))


def is_count(value: object) -> TypeGuard[Count]:
    """Whether it is a whole number of channels."""
    return type(value) is Count


def is_part(value: object) -> TypeGuard[Part]:
    return type(value) is Part


def plain(value: Any, read: bool = True) -> Any:
    """``value`` as the number that a count is, which is then used where ``read``."""
    if type(value) not in _KINDS:
        return value
    return value.use() if read else value.number


class WatchedSize(tuple[Any, ...]):
    """A shape in which the number of channels is a :class:`Count`."""

    __class__ = property(lambda self: torch.Size)

    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        if not isinstance(index, slice):
            return taken(found)
        return WatchedSize(map(taken, found)) if any(map(is_count, found)) else torch.Size(found)

    def __iter__(self) -> Iterator[Any]:
        return map(taken, tuple.__iter__(self))

    def __eq__(self, other: object) -> bool:
        # Where another dimension differs already, the answer tells nothing of the channels.
        if not isinstance(other, tuple) or len(other) != len(self):
            return False
        pairs = list(zip(tuple.__iter__(self), tuple.__iter__(other), strict=True))
        return all(a == b for a, b in sorted(pairs, key=lambda pair: any(map(is_count, pair))))

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __add__(self, other: Any) -> WatchedSize:
        return WatchedSize((*self, *other))

    def __mul__(self, times: Any) -> WatchedSize:
        return WatchedSize(tuple(self) * times)

    def numel(self) -> int:
        return math.prod(self)


def taken(size: Any) -> Any:
    """What code gets that takes a size out of a shape."""
    return size.use() if is_count(size) and size.reader.eager else size


def counts_in(tree: Any) -> list[Count]:
    return counts_among(leaves_of(tree))


def counts_among(leaves: Iterable[Any]) -> list[Count]:
    found: list[Count] = []
    for leaf in leaves:
        kind = type(leaf)
        if kind in _KINDS:
            found.append(leaf)
        elif kind is WatchedSize:
            found += (size for size in tuple.__iter__(leaf) if type(size) in _KINDS)
        elif kind is slice:
            found += (end for end in (leaf.start, leaf.stop, leaf.step) if type(end) in _KINDS)
    return found


def without_counts(tree: Any) -> Any:
    """A call's arguments as torch takes them; ``tree_map`` alone takes longer than many a call."""
    kind = type(tree)
    if kind is tuple or kind is list:
        return kind(map(without_counts, tree))
    if kind is dict:
        return {name: without_counts(part) for name, part in tree.items()}
    if kind is slice:
        return slice(*(plain(end, read=False) for end in (tree.start, tree.stop, tree.step)))
    return tree if kind in LEAVES else tree_map(_without_count, tree)


def _without_count(leaf: Any) -> Any:
    if type(leaf) is WatchedSize:
        return torch.Size([plain(size, read=False) for size in tuple.__iter__(leaf)])
    return plain(leaf, read=False)


def sizes_of(sizes: Sequence[Any]) -> tuple[Any, ...]:
    """``view(2, 3)`` and ``view((2, 3))`` alike; empty where the argument is no shape."""
    if len(sizes) == 1 and isinstance(sizes[0], Sequence):
        sizes = sizes[0]
    return tuple(sizes) if all(isinstance(s, int) for s in sizes) else ()
