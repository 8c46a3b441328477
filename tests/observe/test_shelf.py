"""Outputs at rest: in memory while they fit, then on disk, in half precision where asked for; nothing stays behind."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from detectors import CLASSES, Detector, Images

from seqprune import trace
from seqprune.engine.sequential import prune_sequentially
from seqprune.engine.steps import Settings
from seqprune.observe.extract import observe
from seqprune.observe.shelf import Shelf
from seqprune.observe.streaming import Blocks, BlockStream

CPU = torch.device("cpu")
CHAIN = Blocks("model", tuple((i - 1,) for i in range(6)), (False,) * 6)
IMAGES = 24 * 3 * 32 * 32  # bytes of all test images
OBJECTS = next(iter(Images()))


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_what_does_not_fit_in_memory_goes_to_disk_and_comes_back(temporary: Path) -> None:
    told: list[str] = []
    shelf = Shelf(1000, False, told.append)
    small, large = {0: torch.rand(100)}, {1: torch.rand(300), 2: torch.arange(5, dtype=torch.uint8)}
    first, second = shelf.put(small, OBJECTS), shelf.put(large, OBJECTS)
    assert first is not None
    assert second is not None
    assert (first.place, second.place) == ("memory", "disk")
    assert len(list(temporary.rglob("*.pt"))) == 1
    for kept, outputs in ((first, small), (second, large)):
        back = shelf.read(kept, CPU)
        assert all(torch.equal(back[source], outputs[source]) for source in outputs)
        assert torch.equal(shelf.objects(kept).boxes, OBJECTS.boxes)
    shelf.drop(second)
    assert not list(temporary.rglob("*.pt"))
    shelf.clear()
    assert not list(temporary.iterdir())
    assert len(told) == 1


def test_dropped_memory_is_free_again() -> None:
    shelf = Shelf(1000, False, lambda _text: None)
    for _ in range(5):
        kept = shelf.put({0: torch.rand(200)}, OBJECTS)
        assert kept is not None
        assert kept.place == "memory"
        shelf.drop(kept)


def test_half_precision_takes_half_the_room_and_gives_back_the_type() -> None:
    shelf = Shelf(1000, True, lambda _text: None)
    outputs = {0: torch.rand(200), 1: torch.arange(9, dtype=torch.uint8)}
    kept = shelf.put(outputs, OBJECTS)
    assert kept is not None
    assert kept.bytes == 409
    back = shelf.read(kept, CPU)
    assert back[0].dtype == torch.float32
    assert 0 < (back[0] - outputs[0]).abs().max() < 1e-3
    assert torch.equal(back[1], outputs[1])


def test_a_full_disk_is_said_and_not_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage(10, 10, 0))
    told: list[str] = []
    stream = BlockStream(CHAIN, 0, warn=told.append)
    for name in ("model.1.conv", "model.3.conv"):
        seen = observe(Detector(), [name], Images(), CLASSES, stream=stream).moments[name]
        assert (seen.mean == observe(Detector(), [name], Images(), CLASSES).moments[name].mean).all()
    assert len(told) == 1
    assert "every step runs the network from the start" in told[0]


def test_writing_that_fails_is_said_and_not_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")

    monkeypatch.setattr(torch, "save", full)
    told: list[str] = []
    assert Shelf(0, False, told.append).put({0: torch.rand(9)}, OBJECTS) is None
    assert "file write failed" in told[-1]


def test_where_memory_is_short_the_first_blocks_run_again_from_the_images(temporary: Path) -> None:
    """Their outputs are several times as large as the images."""
    stream = BlockStream(CHAIN, IMAGES)
    graph = trace(Detector(), torch.zeros(1, 3, 32, 32))
    layers = ["model.1.conv", "model.2.cv1.conv"]
    settings = Settings(keep=0.5, match="all")
    streamed = prune_sequentially(Detector(), graph, layers, Images(), CLASSES, settings=settings, stream=stream)[0]
    assert stream._positions is not None
    assert {p.next for p in stream._positions} == {0}
    assert not list(temporary.rglob("*.pt"))
    assert streamed == prune_sequentially(Detector(), graph, layers, Images(), CLASSES, settings=settings)[0]


def test_a_pass_that_is_left_early_is_not_gone_on_from() -> None:
    stream, model = BlockStream(CHAIN), Detector()
    next(iter(stream.passes(model, ["model.1.conv"], Images())))
    seen = observe(model, ["model.3.conv"], Images(), CLASSES, stream=stream)
    assert seen.objects == observe(model, ["model.3.conv"], Images(), CLASSES).objects
