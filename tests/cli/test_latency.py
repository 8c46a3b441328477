"""``--target latency=0.7``: by counted times, so that nothing depends on the machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from clocks import OVERHEAD, count_time

from seqprune.plan import PrunePlan

QUICK = ("--imgsz", "64", "--batch", "4", "--preset", "accurate")


def prune(run: Any, data: Path, folder: Path, *more: object) -> dict[str, Any]:
    code, _, err = run("prune", "yolov8n.yaml", "--data", data, *QUICK, *more, "--project", folder, "--name", "run")
    assert code == 0, err
    found: dict[str, Any] = json.loads((folder / "run" / "report.json").read_text())
    return found


@pytest.mark.parametrize(
    ("by", "share"),
    [("factors", 0.85), ("channels", 0.7), pytest.param("channels,factors", 0.55, marks=pytest.mark.long)],
)
def test_moves_meet_a_target_in_time(
    run: Any, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str, share: float
) -> None:
    """Pairs had never been chosen by time."""
    asked = count_time(monkeypatch)
    report = prune(run, data, tmp_path, "--by", by, "--target", f"latency={share}", "--no-val")
    timed = report["timed"]
    assert timed["after"]["median"] / timed["before"]["median"] == pytest.approx(share, rel=0.05)
    assert timed["runtime"] == "torch"
    assert "layers" in asked
    plan = PrunePlan.load(tmp_path / "run" / "plan.json")
    assert bool(plan.factors) == ("factors" in by)
    assert bool(plan.layers) == ("channels" in by)
    assert not any(factor.rank % 16 for factor in plan.factors)


def test_the_size_is_a_move_in_time_too(run: Any, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count_time(monkeypatch)
    report = prune(run, data, tmp_path, "--by", "size", "--target", "latency=0.5", "--no-val")
    assert report["settings"]["size"] == 32
    timed = report["timed"]
    assert timed["after"]["median"] / timed["before"]["median"] == pytest.approx((0.25 + OVERHEAD) / (1 + OVERHEAD))


@pytest.mark.long
def test_the_page_has_the_smaller_image_beside_the_pruned_network(
    run: Any, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count_time(monkeypatch)
    report = prune(run, data, tmp_path, "--by", "factors", "--target", "latency=0.85")
    whole, smaller, pruned = report["front"]
    assert [(each["what"], each["imgsz"]) for each in report["front"]] == [
        ("unpruned", 64),
        ("unpruned", 32),
        ("pruned", 64),
    ]
    assert (whole["share_of_time"], whole["share_of_operations"]) == (1, 1)
    assert smaller["share_of_operations"] == pytest.approx(0.25)
    assert pruned["share_of_time"] == pytest.approx(0.85, rel=0.05)
    assert pruned["accuracy"]["map50_95"] == report["after"]["map50_95"]
    assert whole["accuracy"]["map50_95"] == report["before"]["map50_95"]
    assert smaller["accuracy"].keys() == whole["accuracy"].keys()
    assert prune(run, data, tmp_path / "none", "--by", "factors", "--target", "params=0.9", "--no-front")["front"] == []


def test_what_is_not_installed_is_said_before_anything_is_done(run: Any, data: Path, tmp_path: Path) -> None:
    code, _, err = run(
        *("prune", "yolov8n.yaml", "--data", data, *QUICK, "--target", "latency=0.5", "--runtime", "tflite"),
        *("--project", tmp_path),
    )
    assert code == 2
    assert "runtime='tflite' is not known: choose torch, onnxruntime" in err
    assert not list(tmp_path.iterdir())
