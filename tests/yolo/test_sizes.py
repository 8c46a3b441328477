"""When smaller images are tried though nobody asked for them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from seqprune import prune
from seqprune.budget.size import FEWEST
from seqprune.demo import weights_path
from seqprune.demo.scenes import write_scenes
from seqprune.engine.listener import Listener
from seqprune.engine.settings import Choose
from seqprune.errors import InputError
from seqprune.yolo.data.files import FileImages
from seqprune.yolo.task.subject import shrinks_unasked

TIMED: dict[str, Any] = {"preset": "accurate", "target": "latency=0.6"}


class Seen(FileImages):
    """So many images, and objects in them."""

    objects = 1

    def __init__(self, images: int, objects: int = 1) -> None:
        self.image_count, self.objects = images, objects  # type: ignore[misc]


def test_of_a_detectors_time_smaller_images_bring_the_most() -> None:
    assert shrinks_unasked(Choose(**TIMED), "detect", Seen(FEWEST), Listener())


def test_without_labels_nothing_says_how_well_a_smaller_image_does(digits: Path) -> None:
    """``latency=0.6`` ended in an error about labels, which no other setting of it asks for."""
    told: list[str] = []
    assert not shrinks_unasked(Choose(**TIMED), "detect", Seen(FEWEST, objects=0), Listener(note=told.append))
    assert "measured by labels" in told[0]
    shutil.rmtree(digits.parent / "labels" / "train")
    asked: dict[str, Any] = {"preset": "accurate", "by": ("factors", "size"), "target": "flops=0.6", "imgsz": 160}
    with pytest.raises(InputError, match="label some, or leave size out of --by"):
        prune(weights_path(), digits, batch=4, val=False, **asked)


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    return write_scenes(tmp_path / "digits", train=16, val=8, size=160, seed=0)


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
    assert not shrinks_unasked(Choose(**TIMED | changed), kind, Seen(images), Listener())
