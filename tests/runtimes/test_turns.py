"""Times that can be compared, with a clock that says what it is told."""

from __future__ import annotations

import time

import pytest

from seqprune.errors import InputError
from seqprune.runtimes.turns import Spread, in_turns
from seqprune.runtimes.where import Where


class Machine:
    """Passes that take so many seconds each, on a machine that slows down by a tenth with every pass."""

    def __init__(self, *seconds: float, slows: float = 0.0) -> None:
        self.now, self.slows, self.speed = 0.0, slows, 1.0
        self.order: list[int] = []
        self.passes = [self._pass(number, each) for number, each in enumerate(seconds)]

    def _pass(self, number: int, seconds: float):  # type: ignore[no-untyped-def]
        def run() -> None:
            self.order.append(number)
            self.now += seconds * self.speed
            self.speed *= 1 + self.slows

        return run

    def clock(self) -> float:
        return self.now


def test_passes_take_turns_and_those_to_warm_up_do_not_count() -> None:
    machine = Machine(0.010, 0.005)
    slow, fast = in_turns(machine.passes, runs=4, warm_up=2, clock=machine.clock)
    assert machine.order == [0, 1] * 6
    assert (slow.runs, fast.runs) == (4, 4)
    assert slow.median == pytest.approx(10)
    assert fast.median == pytest.approx(5)


def test_a_machine_that_slows_down_slows_all_of_them() -> None:
    """One network after the other, the second looked half as fast again as it was."""
    machine = Machine(0.010, 0.005, slows=0.02)
    slow, fast = in_turns(machine.passes, runs=20, warm_up=0, clock=machine.clock)
    assert slow.median > 14
    assert fast.median / slow.median == pytest.approx(0.5, rel=0.05)


def test_medians_and_quartiles_bear_an_outlier() -> None:
    found = Spread.of([1.0, 2.0, 3.0, 4.0, 100.0])
    assert (found.low, found.median, found.high) == (2.0, 3.0, 4.0)
    assert Spread.of([7.0]) == Spread(7.0, 7.0, 7.0, 1)


def test_no_run_tells_nothing() -> None:
    with pytest.raises(InputError, match="runs=0 must be at least 1"):
        in_turns([lambda: None], runs=0)


def test_one_thread_is_timed_by_what_the_processor_gave_it() -> None:
    """Beside other programs the time that passes was ten times that of the layer, and differed by half."""
    assert Where(threads=1).clock is time.process_time
    assert Where(threads=2).clock is time.perf_counter  # threads wait for each other
    assert Where(threads=1, device="0").clock is time.perf_counter
    (spread,) = in_turns([lambda: time.sleep(0.02)], 3, 0, Where(threads=1).clock)
    assert spread.median < 10  # waiting is not working
