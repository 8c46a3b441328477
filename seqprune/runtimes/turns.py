"""Times that can be compared: passes take turns, the first ones are not counted, medians and quartiles are told."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from seqprune.errors import InputError

RUNS, WARM_UP = 20, 3
Pass = Callable[[], object]
"""One forward pass, all of it: it returns when the result is there."""
Clock = Callable[[], float]


@dataclass(frozen=True)
class Spread:
    """Milliseconds of one pass.

    Attributes:
        median: over the runs.
        low, high: quartiles.
        runs: how many were counted.
    """

    median: float
    low: float
    high: float
    runs: int

    @classmethod
    def of(cls, milliseconds: Sequence[float]) -> Spread:
        """Of one run or more."""
        if len(milliseconds) == 1:
            return cls(milliseconds[0], milliseconds[0], milliseconds[0], 1)
        low, median, high = statistics.quantiles(milliseconds, n=4, method="inclusive")
        return cls(median, low, high, len(milliseconds))

    def plain(self) -> dict[str, float]:
        """As JSON holds it."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f}–{self.high:.2f})"


def in_turns(
    passes: Sequence[Pass], runs: int = RUNS, warm_up: int = WARM_UP, clock: Clock = time.perf_counter
) -> list[Spread]:
    """How long each pass takes.

    One of each, then again one of each: a machine that slows down meanwhile slows all of them.

    Args:
        passes: what is timed.
        runs: of each, 1 or more.
        warm_up: of each before, not counted.
        clock: seconds.

    Raises:
        InputError: no run.
    """
    if runs < 1:
        raise InputError(f"runs={runs} must be at least 1")
    taken: list[list[float]] = [[] for _ in passes]
    for number in range(warm_up + runs):
        for once, its in zip(passes, taken, strict=True):
            start = clock()
            once()
            if number >= warm_up:
                its.append(1e3 * (clock() - start))
    return [Spread.of(its) for its in taken]
