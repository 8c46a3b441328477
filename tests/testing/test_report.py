"""Figures of a model before and after pruning, measured where it runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from seqprune.demo import weights_path
from seqprune.errors import InputError
from seqprune.testing.baseline import against
from seqprune.testing.behaviour import EXPORTED
from seqprune.testing.session import PruningReport
from seqprune.testing.written import write


def report(folder: Path, runtime: str = "torch", before: str | None = None) -> PruningReport:
    return PruningReport(str(weights_path()), before, None, runtime, "params=0.9", 64, folder)


def test_the_suite_prunes_where_no_unpruned_network_is_given(tmp_path: Path) -> None:
    seen = report(tmp_path)
    assert seen.said()["unpruned"].endswith("pruned here to params=0.9")
    assert seen.parameters_share == pytest.approx(0.9, abs=0.02)
    assert seen.said()["parameters_share"] == seen.parameters_share
    assert "time_share" not in seen.said()  # nobody asked


def test_shares_are_of_the_unpruned_network_that_is_given(tmp_path: Path) -> None:
    seen = report(tmp_path, before=str(weights_path()))
    assert seen.parameters_share == 1.0
    assert 0.2 < seen.time_share < 5.0  # of itself, on a machine that others use
    assert torch.equal(next(seen.pruned.parameters()), next(seen.unpruned.parameters()))


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnxruntime", pytest.param("openvino", marks=pytest.mark.long)])
def test_in_a_runtime_it_gives_the_same(runtime: str, tmp_path: Path) -> None:
    pytest.importorskip(runtime)
    seen = report(tmp_path, runtime)
    assert 0 < seen.runtime_difference <= EXPORTED
    assert seen.time_share > 0


def test_a_baseline_is_written_only_when_that_is_asked(tmp_path: Path) -> None:
    seen = report(tmp_path, before=str(weights_path()))
    with pytest.raises(InputError, match="write it with --update-baseline"):
        against(seen, tmp_path / "kept")
    assert against(seen, tmp_path / "kept", update=True) == []
    assert against(seen, tmp_path / "kept") == []


def test_results_are_written_where_they_are_asked_for_in_folders_that_are_made(tmp_path: Path) -> None:
    case = {"pruner": "mine", "network": "n", "contract": "runs", "state": "fails", "reason": "3 channels, 4 <b>"}
    files = {
        "summary": str(tmp_path / "a" / "s.md"),
        "json": str(tmp_path / "j.json"),
        "page": str(tmp_path / "p.html"),
    }
    write([case], {"accuracy": 0.25}, files, None)
    assert "| mine | runs | 3 channels, 4 <b> | n |" in (tmp_path / "a" / "s.md").read_text()
    assert "| accuracy | 0.25 |" in (tmp_path / "a" / "s.md").read_text()
    assert json.loads((tmp_path / "j.json").read_text())["cases"] == [case]
    assert "4 &lt;b&gt;" in (tmp_path / "p.html").read_text()
    write([], {}, dict.fromkeys(files), str(tmp_path / "step.md"))
    assert (tmp_path / "step.md").read_text().startswith("## Conformance")
