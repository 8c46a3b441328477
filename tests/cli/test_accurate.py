"""``seqprune prune --preset accurate``: the whole network to a target, repaired without training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from seqprune.budget.target import Target
from seqprune.demo import weights_path, write_scenes
from seqprune.errors import InputError
from seqprune.run import prune
from seqprune.yolo.files.load import load

QUICK = ("--imgsz", "64", "--batch", "4", "--no-val")


@pytest.mark.parametrize(
    ("target", "measure"), [pytest.param("params=0.8", "params", marks=pytest.mark.long), ("flops=0.7", "gflops")]
)
def test_targets_are_met_within_two_percent(run: Any, data: Path, tmp_path: Path, target: str, measure: str) -> None:
    code, out, err = run(
        *("prune", "yolov8n.yaml", "--data", data, *QUICK, "--preset", "accurate"),
        *("--target", target, "--project", tmp_path, "--name", "run"),
    )
    assert code == 0, err
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["after"][measure] / report["before"][measure] == pytest.approx(float(target[-3:]), abs=0.02)
    assert report["verify"]["max_rel"] <= 1e-4
    assert [repair["step"] for repair in report["repairs"]] == ["ls"]
    assert report["settings"]["round_to"] == 8  # what was done, and nothing of clusters, which were not asked
    assert not {"keep", "represent", "match"} & report["settings"].keys()
    pruned = load(tmp_path / "run" / "weights" / "pruned.pt").model
    # A refit of them would have the loss and the exporters decode boxes by other numbers.
    assert pruned.model[-1].dfl.conv.weight.flatten().tolist() == list(range(16))
    assert "recovery: ls" in out
    assert "held-out loss" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--preset", "accurate", "--layers", "3"), "chooses from the whole network"),
        (("--preset", "accurate", "--target", "weight=0.5"), "write params=0.8, flops=0.6 or latency=0.7"),
        (("--preset", "accurate", "--target", "params=1.5"), "write params=0.8, flops=0.6 or latency=0.7"),
        (("--target", "params=0.5", "--layers", "3"), "chooses from the whole network"),
        (("--protect", "model.2"), "take --preset accurate"),
        (("--preset", "accurate", "--protect", "model.99"), "there is no layer in 'model.99' to protect"),
        (("--recover", "magic"), "choose none, ls, bias, bn"),
    ],
)
def test_what_does_not_go_together_is_said(
    run: Any, data: Path, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    code, _, err = run("prune", "yolov8n.yaml", "--data", data, *QUICK, *arguments, "--project", tmp_path)
    assert code == 2
    assert said in err
    assert not list(tmp_path.iterdir())


def test_the_seed_preset_is_repaired_where_it_is_asked_for(run: Any, data: Path, tmp_path: Path) -> None:
    code, out, err = run(
        *("prune", "yolov8n.yaml", "--data", data, *QUICK, "--match", "all", "--keep", "0.5", "--recover", "ls"),
        *("--project", tmp_path),
    )
    assert code == 0, err
    assert "recovery: ls" in out


def test_targets_in_words() -> None:
    assert Target.parse("flops=0.6") == Target("flops", 0.6)
    with pytest.raises(InputError, match="is not understood"):
        Target.parse("0.6")


@pytest.mark.long
def test_half_of_the_parameters_leave_and_the_detections_stay(tmp_path: Path) -> None:
    """Without any training; the digit detector has channels to spare, the seed preset loses all of it with a fifth."""
    data = write_scenes(tmp_path / "digits", train=64, val=64, seed=0)
    record = prune(weights_path(), data, preset="accurate", target="params=0.5", imgsz=128).record
    assert record.before.map50_95 is not None
    assert record.after.map50_95 is not None
    assert record.after.params <= 0.52 * record.before.params
    assert record.after.map50_95 > 0.95 * record.before.map50_95
