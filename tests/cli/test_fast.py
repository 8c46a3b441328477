"""``seqprune prune --preset fast``: the whole network to a target by the weights alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clocks import count_time

from seqprune.budget.criteria import Scoring, scores
from seqprune.plan import PrunePlan
from seqprune.yolo.files.load import load
from seqprune.yolo.task.tracing import trace_detector

QUICK = ("--preset", "fast", "--imgsz", "64")


def report_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return found


@pytest.mark.parametrize(("target", "measure"), [("params=0.8", "params"), ("flops=0.7", "gflops")])
def test_targets_are_met_without_an_image(run: Any, tmp_path: Path, target: str, measure: str) -> None:
    code, out, err = run(
        *("prune", "yolov8n.yaml", *QUICK, "--target", target, "--protect", "model.22"),
        *("--project", tmp_path, "--name", "run"),
    )
    assert code == 0, err
    report, wanted = report_of(tmp_path / "run"), float(target[-3:])
    assert wanted * 0.98 <= report["after"][measure] / report["before"][measure] <= wanted + 1e-3
    assert report["verify"]["max_rel"] <= 1e-4
    assert (report["data"], report["before"]["map50_95"], report["repairs"]) == ("", None, [])
    assert (report["settings"]["criterion"], report["settings"]["verified_on"]) == ("lamp", "noise")
    assert "on noise" in out
    assert "On noise the compact" in (tmp_path / "run" / "report.html").read_text()
    assert all(step["active_after"] % 8 == 0 and "model.22" not in step["layer"] for step in report["steps"])


def test_what_scores_least_of_its_layer_leaves(run: Any, tmp_path: Path) -> None:
    arguments = ("prune", "yolov8n.yaml", *QUICK, "--round-to", "1", "--criterion", "l1", "--project", tmp_path)
    code, _, err = run(*arguments, "--name", "run")
    assert code == 0, err
    torch.manual_seed(0)
    model = load("yolov8n.yaml").model
    graph = trace_detector(model)
    scored = scores("l1", Scoring(model, graph))
    removed = PrunePlan.load(tmp_path / "run" / "plan.json").removed_groups(graph)
    mine = graph.by_name["model.7.conv"].groups  # ungoverned, and made by no other layer
    assert 0 < removed[mine].sum() < len(mine)
    assert scored[mine[removed[mine]]].max() <= scored[mine[~removed[mine]]].min()
    code, _, err = run(*arguments, "--name", "again")
    assert code == 0, err
    assert np.array_equal(removed, PrunePlan.load(tmp_path / "again" / "plan.json").removed_groups(graph))


def test_images_are_used_where_something_asks_for_them(run: Any, data: Path, tmp_path: Path) -> None:
    code, out, err = run(
        *("prune", "yolov8n.yaml", "--data", data, *QUICK, "--batch", "4", "--criterion", "taylor", "--recover", "bn"),
        *("--no-val", "--project", tmp_path, "--name", "run"),
    )
    assert code == 0, err
    report = report_of(tmp_path / "run")
    assert report["settings"]["verified_on"] == "images"
    assert [repair["step"] for repair in report["repairs"]] == ["bn"]
    assert "on images" in out


def test_time_is_measured(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What meets a target in time is what the clock says; here a fifth of the time stays whatever leaves."""
    count_time(monkeypatch)
    code, _, err = run(
        *("prune", "yolov8n.yaml", *QUICK, "--target", "latency=0.64", "--project", tmp_path, "--name", "run")
    )
    assert code == 0, err
    report = report_of(tmp_path / "run")
    times = [report["timed"][when]["median"] for when in ("before", "after")]
    assert times[1] / times[0] == pytest.approx(0.64, rel=0.02)
    # 1.2 of the operations is the whole: 0.64 of it leaves 0.768 - 0.2 of them.
    assert report["after"]["gflops"] / report["before"]["gflops"] == pytest.approx(0.568, rel=0.04)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--preset", "fast", "--criterion", "taylor"), "give --data"),
        (("--preset", "fast", "--recover", "ls"), "give --data"),
        (("--preset", "fast", "--finetune", "1"), "give --data"),
        (("--preset", "accurate"), "give --data"),
        (("--data", ""), "give --data"),
        (("--preset", "fast", "--criterion", "best"), "there is no criterion 'best': choose l1, l2"),
        (("--preset", "fast", "--target", "params=0.01"), "a target of 0.01 cannot be met"),
        (("--preset", "fast", "--protect", "model.99"), "there is no layer in 'model.99' to protect"),
        (("--preset", "fast", "--blocks", "1-3"), "preset fast chooses from the whole network"),
        (("--preset", "fast", "--keep", "0.5"), "leave out keep, represent and match"),
        (("--preset", "accurate", "--criterion", "l1"), "take --preset fast"),
    ],
)
def test_what_does_not_go_together_is_said(run: Any, tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    code, _, err = run("prune", "yolov8n.yaml", "--imgsz", "64", *arguments, "--project", tmp_path)
    assert code == 2
    assert said in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())
