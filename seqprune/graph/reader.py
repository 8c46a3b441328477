"""What is counted by a number of channels, and who is told what code does with the number."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from seqprune.graph.channels import IntArray

if TYPE_CHECKING:
    from seqprune.graph.counts import Count


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
