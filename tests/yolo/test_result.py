"""What a run hands back: its file, its sizes, and how it looks in a notebook."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from torch import nn

import seqprune
from seqprune.report.console import before_after
from seqprune.report.html import page
from seqprune.yolo.files.save import save_pt

NAMES = {0: "green", 1: "red"}


@pytest.fixture
def weights(tiny: nn.Module, tmp_path: Path) -> Path:
    return save_pt(tiny, tmp_path / "tiny.pt", names=NAMES)


@pytest.fixture
def result(weights: Path) -> seqprune.PruneResult:
    return seqprune.prune(weights, preset="fast", target="params=0.6", imgsz=64)


def test_every_report_states_the_size_of_the_file(result: seqprune.PruneResult, weights: Path, tmp_path: Path) -> None:
    saved = result.save(tmp_path / "small.pt")
    sizes = (weights.stat().st_size, saved.stat().st_size)
    assert sizes[1] < sizes[0]
    report = json.loads(result.record.to_json())
    assert (report["before"]["file_bytes"], report["after"]["file_bytes"]) == sizes
    assert "file, MB" in page(result.record)
    assert "file, MB" in [*before_after(result.record).columns[0].cells]


def test_a_network_without_a_file_is_counted_as_it_would_be_saved(tiny: nn.Module, weights: Path) -> None:
    found = seqprune.prune(tiny, preset="fast", target="params=0.6", imgsz=64).record.before.file_bytes
    assert found == pytest.approx(weights.stat().st_size, abs=64)


def test_a_pruned_official_file_is_smaller_than_it_was(real: Path, tmp_path: Path) -> None:
    """6.5 MB became 10.3 MB for 80 % of the parameters."""
    weights = real / "weights" / "yolov8n.pt"
    result = seqprune.prune(weights, preset="fast", target="params=0.8", imgsz=64)
    assert result.save(tmp_path / "small.pt").stat().st_size < 0.83 * weights.stat().st_size
