"""Numbers of channels in the hands of a network's code: free while unused, followed where they are handed on whole.

``b, c, h, w = x.shape`` gives ``c`` as a :class:`Count`. Handed to ``view`` in the channels' place it is followed;
compared with another count, both stay equal; anything else that can see the number pins its channels. A count is no
``int`` in C, so that nothing sees the number unnoticed (``range(c)``, ``0.5 * c``, ``names[c]``), and is one to
``isinstance``.
"""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import torch
from torch.utils._pytree import tree_map

from seqprune.graph.channels import IntArray
from seqprune.graph.values import LEAVES, leaves_of


@dataclass(frozen=True)
class Held:
    """The channels that a module holds: along a dimension of one of its tensors, or counted in an attribute.

    Attributes:
        module: module path of the owner.
        tensors: pairs of tensor and dimension, the first that is cut counts; none where only the attribute tells, of
            which it is seen what it counts when it is handed on for channels.
        attribute: the attribute that holds the number.
        number: what it holds.
        of: path of the layer whose channels it counts, or a part of them, where that was stated.
    """

    module: str
    tensors: tuple[tuple[str, int], ...]
    attribute: str = ""
    number: int = 0
    of: str = ""


Source = IntArray | Held
"""What is counted: the atoms themselves, or what a module holds of them by the end of a trace."""


@dataclass
class Reader:
    """What the code that holds a count does with it, told to whoever records it."""

    use: Callable[[Source, str], None]
    same: Callable[[Source, Source, str], None]
    eager: bool = False
    """Whether a count is used as soon as it is taken out of a shape, for code that only a plain number suits."""
    ended: bool = False
    """Whether the trace has; counts that the network's code keeps somewhere are numbers from then on."""

    def __post_init__(self) -> None:
        self._peeks: list[tuple[Count, object]] = []

    def peek(self, count: Count, at: object) -> None:
        """Something written in C asked for the number; if it was torch's reading of a call, the call comes next."""
        if not self.ended:
            self._peeks.append((count, at))

    def end(self) -> None:
        """Nobody is told any more."""
        self.ended, self.use, self.same = True, _unheard, _unheard
        self._peeks.clear()

    def settle(self, handed: Iterable[Count] = (), at: object = None) -> None:
        """Counts that were asked for their number count as used, but for those handed to a call made ``at`` here."""
        if not self._peeks:
            return
        known = {id(count) for count in handed}
        peeks, self._peeks = self._peeks, []
        for count, where in peeks:
            if where != at or id(count) not in known:
                count.use()


def _unheard(*_: object) -> None:
    pass


def place(frame: Any) -> object:
    """Where a frame stands: the very call in the very code."""
    return id(frame), frame.f_code, frame.f_lasti


class Count:
    """A number of channels. All that can see the number goes through one of the methods below."""

    __slots__ = ("module", "number", "reader", "source")

    def __init__(self, number: int, source: Source, reader: Reader, module: str) -> None:
        self.number, self.source, self.reader, self.module = number, source, reader, module

    __class__ = property(lambda self: int)

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


def _forward(name: str, function: Callable[..., Any]) -> None:
    setattr(Count, f"__{name}__", lambda self: function(self.use()))


def _both_ways(name: str, function: Callable[[Any, Any], Any]) -> None:
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


def is_count(value: object) -> TypeGuard[Count]:
    return type(value) is Count


def plain(value: Any, read: bool = True) -> Any:
    """``value`` as the number that a count is, which is then used where ``read``."""
    if type(value) is not Count:
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
        if kind is Count:
            found.append(leaf)
        elif kind is WatchedSize:
            found += filter(is_count, tuple.__iter__(leaf))
        elif kind is slice:
            found += filter(is_count, (leaf.start, leaf.stop, leaf.step))
    return found


def without_counts(tree: Any) -> Any:
    """A call's arguments as torch takes them; ``tree_map`` alone takes longer than many a call."""
    kind = type(tree)
    if kind is tuple or kind is list:
        return kind(map(without_counts, tree))
    if kind is dict:
        return {name: without_counts(part) for name, part in tree.items()}
    if kind is slice:
        return slice(*(plain(part, read=False) for part in (tree.start, tree.stop, tree.step)))
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
