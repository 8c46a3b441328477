"""What a run hands back: its file, its sizes, and how it looks in a notebook."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest
from torch import nn

import seqprune
from seqprune.report.console import before_after
from seqprune.report.html import page
from seqprune.report.record import compare
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
    assert f"{sizes[1] / 1e6:.2f} MB" in page(result.record)
    assert "file, MB" in [*before_after(result.record).columns[0].cells]


def test_a_network_without_a_file_is_counted_as_it_would_be_saved(tiny: nn.Module, weights: Path) -> None:
    found = seqprune.prune(tiny, preset="fast", target="params=0.6", imgsz=64).record.before.file_bytes
    assert found == pytest.approx(weights.stat().st_size, abs=64)


def test_a_pruned_official_file_is_smaller_than_it_was(real: Path, tmp_path: Path) -> None:
    """6.5 MB became 10.3 MB for 80 % of the parameters."""
    weights = real / "weights" / "yolov8n.pt"
    result = seqprune.prune(weights, preset="fast", target="params=0.8", imgsz=64)
    assert result.save(tmp_path / "small.pt").stat().st_size < 0.83 * weights.stat().st_size


def test_a_result_shows_a_table(result: seqprune.PruneResult) -> None:
    """Thirty-seven thousand characters, most of them of the network."""
    for shown in (repr(result), str(result)):
        assert len(shown) < 800
        assert "tiny.pt, preset fast" in shown
        assert "parameters" in shown
    assert repr(result.plan) == str(result.plan)
    assert repr(result.plan).startswith(f"PrunePlan({len(result.plan.layers)} layers lose channels, ")
    assert len(repr(result.plan)) < 100
    assert len(repr(result.plan.layers[0])) < 100
    assert len(repr(result.record)) < 1500


def test_a_notebook_shows_it_as_html_with_everything_escaped(result: seqprune.PruneResult) -> None:
    strange = replace(result, record=replace(result.record, model="<b>.pt"))
    shown = strange._repr_html_()
    assert "<table>" in shown
    assert "&lt;b&gt;.pt" in shown
    assert "<b>" not in shown
    assert shown.count("<tr>") == 1 + len(compare(result.before, result.after))


def test_what_was_measured_is_one_step_away(result: seqprune.PruneResult, weights: Path, data_yaml: Path) -> None:
    assert result.before is result.record.before
    assert result.after is result.record.after
    assert result.metrics.keys() == {"params", "gflops", "latency_ms", "file_bytes"}
    assert result.metrics["params"] == result.after.params
    measured = seqprune.prune(weights, data_yaml, preset="fast", target="params=0.6", imgsz=64)
    assert measured.metrics["map50_95"] == measured.after.map50_95


def test_the_version_and_the_listener_are_public() -> None:
    assert seqprune.__version__ == metadata.version("seqprune")
    assert seqprune.Listener().stage("begin", None) is None
    assert "Listener" in seqprune.__all__


@pytest.mark.parametrize(
    ("progress", "prompt", "shown"),
    [(True, False, True), (None, True, True), (None, False, False), (False, True, False)],
)
def test_progress_is_shown_from_python_as_from_the_command_line(
    weights: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    progress: bool | None,
    prompt: bool,
    shown: bool,
) -> None:
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    if not prompt:
        monkeypatch.delattr(sys, "ps1")
    seqprune.prune(weights, preset="fast", target="params=0.6", imgsz=64, progress=progress)
    assert ("score by lamp" in capsys.readouterr().out) == shown


def test_a_listener_hears_beside_the_screen(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    heard: list[str] = []
    listener = seqprune.Listener(stage=lambda name, _total: heard.append(name))
    seqprune.prune(weights, preset="fast", target="params=0.6", imgsz=64, listener=listener, progress=True)
    assert "score by lamp" in heard
    assert "score by lamp" in capsys.readouterr().out
