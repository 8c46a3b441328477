"""When smaller images are tried though nobody asked for them."""

from __future__ import annotations

from typing import Any

import pytest

from seqprune.budget.size import FEWEST
from seqprune.engine.settings import Choose
from seqprune.yolo.task.subject import shrinks_unasked

TIMED: dict[str, Any] = {"preset": "accurate", "target": "latency=0.6"}


def test_of_a_detectors_time_smaller_images_bring_the_most() -> None:
    assert shrinks_unasked(Choose(**TIMED), "detect", FEWEST)


@pytest.mark.parametrize(
    ("changed", "kind", "images"),
    [
        ({"by": ("channels", "factors")}, "detect", 64),  # moves are named
        ({"target": "flops=0.6"}, "detect", 64),
        ({"target": "params=0.6"}, "detect", 64),
        ({"preset": "fast"}, "detect", 64),
        ({}, "segment", 64),  # judged by boxes
        ({}, "detect", FEWEST - 1),  # too few to judge by
    ],
)
def test_else_their_size_stays(changed: dict[str, Any], kind: str, images: int) -> None:
    assert not shrinks_unasked(Choose(**TIMED | changed), kind, images)
