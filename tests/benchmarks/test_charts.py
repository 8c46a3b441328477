"""Numbers as people write them, and drawings that hold their points."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.dashboard import charts
from benchmarks.dashboard.rows import moved


@pytest.mark.parametrize(
    ("value", "said"),
    [(1e-9, "1 ns"), (3.4e-4, "340 µs"), (0.99999, "1 s"), (0.0123, "12.3 ms"), (61.2, "61.2 s"), (180, "3 min")],
)
def test_seconds_come_in_the_unit_people_say(value: float, said: str) -> None:
    assert charts.seconds(value) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0, "0"),
        (7.4999, "7.5"),
        (2437.1, "2,440"),
        (0.00934, "0.00934"),
        (3.8e-7, "3.8e-7"),
        (1.0, "1"),
        (999.9, "1,000"),
    ],
)
def test_numbers_have_three_figures(value: float, said: str) -> None:
    assert charts.number(value) == said


@pytest.mark.parametrize(("factor", "said"), [(1.0, "± 0 %"), (1.04, "+4 %"), (0.9, "−10 %"), (3.0, "× 3")])
def test_changes(factor: float, said: str) -> None:
    assert moved(factor) == said


@given(st.lists(st.floats(1e-9, 1e6), min_size=2, max_size=30))
def test_every_point_lies_in_its_drawing(values: list[float]) -> None:
    dots = tuple(charts.Dot(n, value, "") for n, value in enumerate(values))
    text = charts.over_commits([charts.Line(dots)], len(values), "")
    found = [(float(x), float(y)) for x, y in re.findall(r'cx="([-\d.e]+)" cy="([-\d.e]+)"', text)]
    assert len(found) == len(values)
    assert all(0 <= x <= charts.WIDTH and 0 <= y <= charts.HEIGHT for x, y in found)
    for (_, y), (_, other), before, after in zip(found, found[1:], values, values[1:], strict=False):
        assert (after >= before) == (other <= y) or abs(other - y) <= 0.1


def test_noise_looks_small() -> None:
    """An axis that fits its values makes a step of 1 % look like one of 100 %."""
    dots = tuple(charts.Dot(n, value, "") for n, value in enumerate((1.0, 1.02, 1.0)))
    heights = [float(y) for y in re.findall(r'cy="([\d.]+)"', charts.over_commits([charts.Line(dots)], 3, ""))]
    assert max(heights) - min(heights) < 2
