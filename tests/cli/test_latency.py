"""``--target latency=0.7``: by counted times, so that nothing depends on the machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from clocks import OF_EIGHT_BITS, OVERHEAD, count_time

import seqprune.runtimes.where as where
from seqprune.engine.listener import Listener
from seqprune.engine.settings import Choose, Look
from seqprune.errors import LostError, ModelError, TargetError
from seqprune.plan import PrunePlan
from seqprune.yolo.task import sized
from seqprune.yolo.task.subject import _eight_bits_for

QUICK = ("--imgsz", "64", "--batch", "4", "--preset", "accurate")


def prune(run: Any, data: Path, folder: Path, *more: object) -> dict[str, Any]:
    code, _, err = run("prune", "yolov8n.yaml", "--data", data, *QUICK, *more, "--project", folder, "--name", "run")
    assert code == 0, err
    found: dict[str, Any] = json.loads((folder / "run" / "report.json").read_text())
    return found


@pytest.mark.parametrize(
    ("by", "share"),
    [
        ("factors", 0.85),
        *(pytest.param(*given, marks=pytest.mark.long) for given in [("channels", 0.7), ("channels,factors", 0.55)]),
    ],
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


@pytest.mark.slow
def test_a_size_at_which_the_target_cannot_be_met_is_not_chosen(
    run: Any, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ended the run, where another size was enough alone."""
    count_time(monkeypatch)
    tried: list[float] = []

    def decided(engine: Any, way: Any, **how: Any) -> Any:
        tried.append(way.target.share)
        raise TargetError("latency cannot be met")

    monkeypatch.setattr(sized, "decide", decided)
    asked = ("--by", "factors,size", "--target", "latency=0.5", "--no-val", "--imgsz", "96")
    report = prune(run, data, tmp_path, *asked)
    assert len(tried) == 1
    assert report["settings"]["size"] == 32


@pytest.mark.slow
@pytest.mark.parametrize("where", [(sized, "decide"), (sized.Engine, "repair")], ids=["choice", "repair"])
def test_images_that_are_gone_are_no_size_at_which_the_target_cannot_be_met(
    run: Any, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: tuple[Any, str]
) -> None:
    """Whatever failed in a trial passed for that, and another size was taken without a word."""
    count_time(monkeypatch)

    def gone(*_given: object, **_more: object) -> Any:
        raise LostError("an image is gone")

    monkeypatch.setattr(*where, gone)
    asked = ("--by", "factors,size", "--target", "latency=0.5", "--no-val", "--imgsz", "96", "--project", tmp_path)
    code, _, err = run("prune", "yolov8n.yaml", "--data", data, *QUICK, *asked)
    assert code != 0
    assert "an image is gone" in err


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


def in_eight_bits(network: Any, task: Any, _watch: Any, _folder: Path) -> dict[str, Any]:
    """In place of a runtime's tool."""
    ms = {"low": 1.0, "high": 1.0, "runs": 3}
    accuracy = task.accuracy(network)
    found = {"file_bytes": 300, "ms": ms | {"median": 4.0}, "accuracy": {"map50_95": accuracy["map50_95"]}}
    return {"runtime": "openvino", "file": "x", "float": found, "int8": found | {"ms": ms | {"median": 2.0}}}


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> None:
    """A runtime with a tool for eight bits, whatever is installed."""
    monkeypatch.setattr(where, "is_installed", lambda _runtime: True)
    monkeypatch.setattr(where, "missing_tools", lambda _runtime: [])
    monkeypatch.setattr(where, "version", lambda _runtime: "1")
    monkeypatch.setattr("seqprune.yolo.task.eight_bits.eight_bits", in_eight_bits)


@pytest.mark.slow
@pytest.mark.usefixtures("tool")
@pytest.mark.parametrize(
    ("share", "by"), [(0.6, "factors"), (0.6, "factors,size"), pytest.param(0.45, "factors", marks=pytest.mark.long)]
)
def test_a_target_of_time_is_that_of_the_file_in_eight_bits(
    run: Any, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float, by: str
) -> None:
    """The file in eight bits took half of the time, and the network was pruned to the target besides."""
    count_time(monkeypatch)
    asked = ("--by", by, "--target", f"latency={share}", "--runtime", "openvino", "--int8")
    report = prune(run, data, tmp_path, *asked)
    timed, plan = report["timed"], PrunePlan.load(tmp_path / "run" / "plan.json")
    assert timed["bits"] == 8
    enough = share >= OF_EIGHT_BITS
    expected = OF_EIGHT_BITS if enough else share
    assert timed["after"]["median"] / timed["before"]["median"] == pytest.approx(expected, rel=0.05)
    assert bool(plan.factors) != enough
    assert (report["before"]["params"] == report["after"]["params"]) == enough
    assert [(each["what"], each["bits"]) for each in report["front"]][-3:] == [
        ("unpruned", 8),
        ("pruned", 32),
        ("pruned", 8),
    ]
    trivial = [each["imgsz"] for each in report["front"] if (each["what"], each["bits"]) == ("unpruned", 8)]
    assert trivial == ([64] if enough else [64, 32])
    page = (tmp_path / "run" / "report.html").read_text()
    assert "time in openvino, eight bits" in page
    assert "pruned, int8" in page


@pytest.mark.usefixtures("tool")
def test_eight_bits_that_save_no_time_meet_no_target(
    run: Any, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime took 1.6 times as long in eight bits on some processors."""
    count_time(monkeypatch)
    monkeypatch.setattr("clocks.OF_EIGHT_BITS", 1.6)
    code, _, err = run(
        *("prune", "yolov8n.yaml", "--data", data, *QUICK, "--target", "latency=0.6", "--project", tmp_path),
        *("--runtime", "onnxruntime", "--int8"),
    )
    assert code == 2
    assert "in eight bits the network takes 1.60 of its time in onnxruntime on this processor: leave out" in err


@pytest.mark.long
@pytest.mark.usefixtures("tool")
def test_eight_bits_are_among_the_trivial_ways_to_less_time(
    run: Any, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody asked for them, and the page did not say what they alone would have given."""
    count_time(monkeypatch)
    asked = ("--by", "factors", "--target", "latency=0.85", "--runtime", "openvino")
    report = prune(run, data, tmp_path, *asked)
    assert (report["timed"]["bits"], report["int8"]) == (32, {})
    assert [(each["what"], each["bits"]) for each in report["front"]][-2:] == [("unpruned", 8), ("pruned", 32)]
    assert report["front"][-2]["share_of_time"] == pytest.approx(0.5)

    def fails(*_about: object) -> dict[str, Any]:
        raise ModelError("openvino cannot bring this network to eight bits")

    monkeypatch.setattr("seqprune.yolo.task.eight_bits.eight_bits", fails)
    report = prune(run, data, tmp_path / "again", *asked)
    assert {each["bits"] for each in report["front"]} == {32}


@pytest.mark.parametrize(("runtime", "asked"), [("openvino", ["nncf"]), ("torch", [])])
def test_who_could_have_eight_bits_is_told_what_to_install(
    monkeypatch: pytest.MonkeyPatch, runtime: str, asked: list[str]
) -> None:
    """In OpenVINO they kept everything in 0.4 of the time, and who had not installed their tool never heard of them."""
    monkeypatch.setattr(where, "is_installed", lambda _runtime: True)
    monkeypatch.setattr(where, "find_spec", lambda package: None if package == "nncf" else package)
    notes: list[str] = []
    way = Choose(preset="accurate", target="latency=0.5").way
    assert _eight_bits_for("detect", "data.yaml", Look(runtime=runtime), way, Listener(note=notes.append)) is None
    assert all(f"`pip install {package}` shows" in note for package, note in zip(asked, notes, strict=True))


def test_what_is_not_installed_is_said_before_anything_is_done(run: Any, data: Path, tmp_path: Path) -> None:
    code, _, err = run(
        *("prune", "yolov8n.yaml", "--data", data, *QUICK, "--target", "latency=0.5", "--runtime", "tflite"),
        *("--project", tmp_path),
    )
    assert code == 2
    assert "runtime='tflite' is not known: choose torch, onnxruntime" in err
    assert not list(tmp_path.iterdir())
