"""Rows timed in runtimes, other networks as rows, and what is ahead."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from clocks import OVERHEAD, count_time
from hypothesis import given
from hypothesis import strategies as st

from seqprune.measure.compare import compare
from seqprune.measure.comparison import front

numbers = st.floats(0, 1, allow_nan=False)


@given(st.lists(st.tuples(numbers, numbers), max_size=20))
def test_nothing_is_as_cheap_and_better_than_what_is_on_the_front(points: list[tuple[float, float]]) -> None:
    found = front(points)
    assert set(found) <= set(points)
    assert found == sorted(found)
    for cost, worth in points:
        assert any(c <= cost and w >= worth for c, w in found)
    for cost, worth in found:
        assert not [p for p in points if (p[0] <= cost and p[1] > worth) or (p[0] < cost and p[1] == worth)]


@pytest.mark.slow
def test_smaller_images_and_smaller_networks_are_rows_and_all_are_timed(
    data_yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: Any
) -> None:
    """Who compared methods at equal operations did not see that a smaller image was better than all of them."""
    count_time(monkeypatch)
    found = compare(
        tiny, data_yaml, targets=[0.5], methods=["l1"], count="flops", images=4, imgsz=64, batch=4, runtimes=["torch"]
    )
    assert [row.method for row in found.rows] == ["unpruned", "l1", "imgsz"]
    whole, small, resized = found.rows
    assert resized.times["torch"] / whole.times["torch"] == pytest.approx((0.25 + OVERHEAD) / (1 + OVERHEAD))
    assert whole.times["torch"] > small.times["torch"]
    assert (whole.file_bytes or 0) > (small.file_bytes or 0) > 0
    head, cells = found.cells()
    assert "ms, torch" in head
    assert all(len(row) == len(head) for row in cells)
    found.write(tmp_path)
    assert json.loads((tmp_path / "compare.json").read_text())["rows"][2]["times"] == resized.times
    page = (tmp_path / "compare.html").read_text()
    assert "Over time in torch" in page
    assert "front" in page


def test_a_network_of_other_classes_is_a_row_with_its_reason(data_yaml: Path, tiny: Any) -> None:
    found = compare(tiny, data_yaml, targets=[0.5], methods=["yolov8n.yaml"], images=4, imgsz=64, batch=4)
    assert found.rows[1].method == "yolov8n.yaml"
    assert "has other classes" in found.rows[1].reason
