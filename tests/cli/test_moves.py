"""``--by``: factors and the size of the images beside channels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ultralytics import YOLO

from seqprune.demo import weights_path
from seqprune.demo.scenes import write_scenes
from seqprune.engine.listener import Listener
from seqprune.plan import PrunePlan
from seqprune.run import prune
from seqprune.surgery import compact, verify
from seqprune.yolo.files.load import load
from seqprune.yolo.files.networks import example

QUICK = ("--imgsz", "64", "--batch", "4", "--no-val")


@pytest.mark.parametrize(
    ("target", "measure", "by", "moves"),
    [
        pytest.param("params=0.9", "params", ("--by", "factors"), ["factors"], marks=pytest.mark.long),
        ("flops=0.85", "gflops", (), ["channels", "factors"]),  # of themselves where operations count
    ],
)
def test_factors_meet_the_target(
    run: Any, data: Path, tmp_path: Path, target: str, measure: str, by: tuple[str, ...], moves: list[str]
) -> None:
    code, _, err = run(
        *("prune", "yolov8n.yaml", "--data", data, *QUICK, *by),
        *("--target", target, "--project", tmp_path, "--name", "run"),
    )
    assert code == 0, err
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    share = float(target.partition("=")[2])
    assert share - 0.02 < report["after"][measure] / report["before"][measure] <= share
    assert report["settings"]["by"] == moves
    plan = PrunePlan.load(tmp_path / "run" / "plan.json")
    assert plan.factors
    assert not plan.layers
    pruned = load(tmp_path / "run" / "weights" / "pruned.pt")
    assert pruned.plan == plan
    again = compact(load("yolov8n.yaml", seed=0).model, plan)
    assert {n: t.shape for n, t in again.state_dict().items()} == {
        n: t.shape for n, t in pruned.model.state_dict().items()
    }


@pytest.mark.long
def test_blocks_leave_and_are_named(run: Any, data: Path, tmp_path: Path) -> None:
    code, out, err = run(
        *("prune", "yolov8n.yaml", "--data", data, *QUICK, "--preset", "accurate", "--by", "blocks"),
        *("--target", "flops=0.9", "--project", tmp_path, "--name", "run"),
    )
    assert code == 0, err
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert 0.8 < report["after"]["gflops"] / report["before"]["gflops"] <= 0.9
    plan = PrunePlan.load(tmp_path / "run" / "plan.json")
    assert plan.blocks
    assert [step["layer"] for step in report["steps"]][: len(plan.blocks)] == list(plan.blocks)
    assert "left out whole" in out + err
    left = {entry["name"] for entry in report["network"] if entry["left_out"]}
    assert left == {f"{block}.{unit}.conv" for block in plan.blocks for unit in ("cv1", "cv2")}
    assert "left out with its block" in (tmp_path / "run" / "report.html").read_text()
    pruned = load(tmp_path / "run" / "weights" / "pruned.pt")
    assert pruned.plan == plan
    again = compact(load("yolov8n.yaml", seed=0).model, plan).state_dict()
    assert {n: t.shape for n, t in again.items()} == {n: t.shape for n, t in pruned.model.state_dict().items()}


@pytest.mark.long
def test_channels_leave_too_where_pairs_do_not_reach(run: Any, data: Path, tmp_path: Path) -> None:
    code, _, err = run(
        *("prune", "yolov8n.yaml", "--data", data, *QUICK, "--preset", "accurate", "--by", "channels,factors"),
        *("--target", "flops=0.5", "--project", tmp_path, "--name", "run"),
    )
    assert code == 0, err
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["after"]["gflops"] / report["before"]["gflops"] == pytest.approx(0.5, abs=0.02)
    plan = PrunePlan.load(tmp_path / "run" / "plan.json")
    assert plan.factors
    assert plan.layers
    layers = [step["layer"] for step in report["steps"]]
    assert len(layers) == len(set(layers))
    pruned = load(tmp_path / "run" / "weights" / "pruned.pt").model
    again = compact(load("yolov8n.yaml", seed=0).model, plan)
    assert {n: t.shape for n, t in again.state_dict().items()} == {n: t.shape for n, t in pruned.state_dict().items()}


def test_the_size_alone_leaves_the_network_as_it_is(run: Any, data: Path, tmp_path: Path) -> None:
    """64 px is two strides: half of a side is the only smaller one."""
    code, _, err = run(
        *("prune", "yolov8n.yaml", "--data", data, *QUICK, "--preset", "accurate", "--by", "size,factors"),
        *("--target", "flops=0.3", "--project", tmp_path, "--name", "run"),
    )
    assert code == 0, err
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["settings"]["by"] == ["factors", "size"]
    assert report["settings"]["size"] == 32
    assert report["after"]["gflops"] == pytest.approx(report["before"]["gflops"] / 4)
    pruned = load(tmp_path / "run" / "weights" / "pruned.pt")
    assert pruned.checkpoint is not None
    assert pruned.checkpoint["train_args"]["imgsz"] == 32
    assert pruned.plan is not None
    assert pruned.plan.imgsz == 32
    model = load("yolov8n.yaml", seed=0).model
    model = model.half().float()  # as the file holds it
    assert verify(model, pruned.model, example(model), tolerance=0.0)


@pytest.mark.long
def test_channels_do_the_rest_where_little_can_be_a_pair(run: Any, data: Path, tmp_path: Path) -> None:
    """The 3×3 convolutions of YOLO11n are half of it: pairs alone end above 0.6."""
    report = tmp_path / "run" / "report.json"
    about = ("prune", "yolo11n.yaml", "--data", data, *QUICK, "--target", "flops=0.6", "--project", tmp_path)
    code, _, err = run(*about, "--name", "run")
    assert code == 0, err
    found = json.loads(report.read_text())
    assert found["after"]["gflops"] / found["before"]["gflops"] == pytest.approx(0.6, abs=0.02)
    plan = PrunePlan.load(tmp_path / "run" / "plan.json")
    assert plan.factors
    assert plan.layers


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--preset", "accurate", "--by", "magic"), "choose of channels, factors, blocks, size"),
        (("--preset", "accurate", "--by", ""), "choose of channels, factors, blocks, size"),
        (("--preset", "fast", "--by", "factors"), "take --preset accurate, or leave out by"),
        (("--by", "factors"), "take --preset accurate, or leave out by"),
        (("--preset", "accurate", "--by", "factors", "--protect", "model.99"), "there is no layer in 'model.99'"),
        (("--preset", "accurate", "--by", "size", "--target", "params=0.5"), "smaller images bring"),
    ],
)
def test_what_does_not_go_together_is_said(
    run: Any, data: Path, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    code, _, err = run("prune", "yolov8n.yaml", "--data", data, *QUICK, *arguments, "--project", tmp_path)
    assert code == 2
    assert said in err


@pytest.mark.long
def test_sizes_are_tried_and_the_one_that_does_best_is_taken(digits: Path, tmp_path: Path) -> None:
    """At 160 px, 128 leaves 0.94 of the operations to the pairs, and 96 alone is enough."""
    told: list[str] = []
    result = prune(
        *(weights_path(), digits),
        preset="accurate",
        target="flops=0.6",
        by=("factors", "size"),
        imgsz=160,
        batch=4,
        val=False,
        listener=Listener(stage=lambda name, _images: told.append(name)),
    )
    tried = [stage for stage in told if stage.startswith("try")]
    assert tried[0] == "try 128 pixels: weigh errors", "a long try says what it is at"
    assert [stage for stage in tried if stage.endswith("measure")] == ["try 128 pixels: measure"] * 2, (
        "either half of the 16 judges the fit to the other"
    )
    assert [stage for stage in told if stage.endswith("pixels alone")] == [
        f"measure {size} pixels alone" for size in (160, 128, 96)
    ]
    assert result.plan.imgsz in (96, 128)
    assert bool(result.plan.factors) == (result.plan.imgsz == 128)
    assert result.record.after.gflops <= 0.6 * result.record.before.gflops
    assert YOLO(result.save(tmp_path / "small.pt")).overrides["imgsz"] == result.plan.imgsz


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    return write_scenes(tmp_path / "digits", train=16, val=8, size=160, seed=0)
