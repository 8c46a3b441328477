"""Targets in time: what a price says, what a clock says, and what is tried between."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from seqprune.budget.meet import FAR, NEAR, ROUNDS, meet
from seqprune.budget.target import Target
from seqprune.budget.timed import Line
from seqprune.errors import TargetError


def tried(
    left: Callable[[float], float], target: float, least: float = 0.0, refused: str = "too little"
) -> tuple[float, list[float]]:
    """What is chosen where a share of the price leaves ``left`` of the time, and all that was measured."""
    measured: list[float] = []

    def choose(share: float) -> float:
        if share < least:
            raise TargetError(refused)
        return share

    def measure(share: float) -> float:
        measured.append(left(share))
        return measured[-1]

    return left(meet(choose, measure, target)), measured


@given(
    overhead=st.floats(0.0, 0.3),
    curved=st.floats(0.7, 1.4),
    target=st.floats(0.45, 0.9),
)
def test_time_that_falls_with_the_price_is_met(overhead: float, curved: float, target: float) -> None:
    found, measured = tried(lambda share: overhead + (1 - overhead) * share**curved, target)
    assert abs(found / target - 1) <= FAR
    assert len(measured) <= ROUNDS
    if len(measured) < ROUNDS:
        assert abs(found / target - 1) <= NEAR


def test_what_others_left_and_what_is_left_to_do_come_to_the_whole_target() -> None:
    whole = Target("params", 0.5)
    rest = whole.of_the_rest(0.8).of_the_rest(0.9)
    assert (rest.kind, rest.share) == ("params", 0.9)
    assert rest.share * rest.of == pytest.approx(whole.share)


def test_where_the_price_is_right_one_measurement_is_enough() -> None:
    assert tried(lambda share: share, 0.6) == (0.6, [0.6])


@pytest.mark.parametrize("overhead", [0.1, 0.3, 0.45])
def test_where_what_is_saved_is_in_proportion_two_measurements_are_enough(overhead: float) -> None:
    found, measured = tried(lambda share: overhead + (1 - overhead) * share, 0.6)
    assert found == pytest.approx(0.6)
    assert len(measured) == 2


def test_where_the_price_does_not_go_so_far_the_clock_may() -> None:
    """The price knows nothing of what leaves beside the layers."""
    found, _ = tried(lambda share: share - 0.2, 0.4, least=0.55)
    assert found == pytest.approx(0.4, rel=NEAR)


def test_what_saves_no_time_at_all_is_no_error() -> None:
    """Launching a layer takes its time whatever it is: a share of the price may leave all of it, and more."""
    for slowed in (1.0, 1.2):
        found, measured = tried(lambda share, slowed=slowed: slowed if share > 0.4 else share, 0.6)  # type: ignore[misc]
        assert found == pytest.approx(0.4, abs=0.1)
        assert measured[0] == slowed


def test_steps_that_are_coarse_end_at_the_nearest() -> None:
    found, measured = tried(lambda share: round(10 * share) / 10, 0.52)
    assert found == 0.5
    assert len(measured) == ROUNDS


def test_what_cannot_be_met_is_said_with_what_can() -> None:
    with pytest.raises(TargetError, match=r"latency=0\.5 cannot be met, 0\.6\d+ of the time stays at the least"):
        tried(lambda share: 0.6 + 0.4 * share, 0.5)
    with pytest.raises(TargetError, match="too little"):
        tried(lambda share: share, 0.5, least=1.0)
    assert tried(lambda share: max(share, 0.5 * (1 + FAR / 2)), 0.5)[0] <= 0.5 * (1 + FAR)


@given(
    overhead=st.floats(0.0, 0.9),
    curved=st.floats(0.3, 3.0),
    target=st.floats(0.1, 0.95),
    least=st.floats(0.0, 0.99),
    rounds=st.integers(1, 8),
)
@example(overhead=0.5, curved=1.0, target=0.5, least=0.0, rounds=3)  # in proportion nothing at all would stay
def test_every_share_lies_between_what_left_too_much_and_what_left_too_little(
    overhead: float, curved: float, target: float, least: float, rounds: int
) -> None:
    asked: list[float] = []

    def left(share: float) -> float:
        return overhead + (1 - overhead) * share**curved

    def choose(share: float) -> float:
        asked.append(share)
        if share < least:
            raise TargetError("too little")
        return share

    try:
        found = meet(choose, left, target, rounds, nearest=True)
    except TargetError:
        assert all(share < least for share in asked)
    else:
        assert abs(left(found) - target) == min(abs(left(share) - target) for share in asked if share >= least)
    assert len(asked) <= rounds
    low, high = 0.0, 1.0
    for share in asked:
        assert low < share < high
        if share < least or left(share) <= target:
            low = share
        else:
            high = share


def test_the_nearest_may_be_far_where_that_is_said() -> None:
    assert meet(lambda share: share, lambda share: 0.6 + 0.4 * share, 0.5, nearest=True) < 0.1
    for far in (False, True):
        with pytest.raises(TargetError, match="too little"):
            meet(lambda share: refuse(), lambda share: share, 0.5, nearest=far)


def refuse() -> float:
    raise TargetError("too little")


@given(st.lists(st.tuples(st.floats(0.01, 1.0), st.floats(0.0, 10.0)), min_size=1, max_size=5))
def test_a_line_of_times_is_never_below_nothing(points: list[tuple[float, float]]) -> None:
    line = Line.through(points)
    assert line.base >= 0
    assert line.each >= 0


def test_a_line_goes_through_what_lies_on_one() -> None:
    line = Line.through([(1.0, 5.0), (0.5, 3.0), (0.25, 2.0)])
    assert (line.base, line.each) == pytest.approx((1.0, 4.0))
