"""``seqprune prune`` from weights and images to files, in a process of its own with its output piped."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from seqprune.engine.listener import Listener
from seqprune.errors import ChangedError
from seqprune.plan import PrunePlan
from seqprune.run import prune

MODEL = "yolov8n.yaml"
QUICK = ("--match", "all", "--imgsz", "64", "--keep", "0.5", "--no-val")
FILES = {"weights", "weights/pruned.pt", "plan.json", "report.json", "drawn.json", "report.html"}


class Finished(NamedTuple):
    folder: Path
    out: str
    err: str


@pytest.fixture(scope="module")
def finished(process: Any, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    project = tmp_path_factory.mktemp("project") / "runs"
    code, out, err = process("prune", MODEL, "--data", data, *QUICK, "--project", project)
    assert code == 0, err
    return Finished(project / "yolov8n", out, err)


def test_it_writes_its_files_and_nothing_else(finished: Finished) -> None:
    assert [entry.name for entry in finished.folder.parent.iterdir()] == ["yolov8n"]
    assert {str(p.relative_to(finished.folder)) for p in finished.folder.rglob("*")} == FILES


def test_the_output_is_readable_when_piped(finished: Finished) -> None:
    assert finished.err == ""
    assert "\x1b" not in finished.out
    assert "\r" not in finished.out
    assert finished.out.count("step ") == 3
    assert "original channels" in finished.out
    assert "active/total" in finished.out
    for title in ("before", "after", "parameters", "GFLOPs", "latency", "max_rel", "results in"):
        assert title in finished.out
    assert "mAP50" not in finished.out


def test_the_report_says_what_was_done(finished: Finished) -> None:
    report = json.loads((finished.folder / "report.json").read_text())
    for key in ("model", "data", "preset", "seed", "versions", "steps", "verify", "before", "after"):
        assert key in report
    assert report["after"]["params"] < report["before"]["params"]
    assert report["after"]["gflops"] < report["before"]["gflops"]
    assert report["after"]["map50_95"] is None
    assert 0 <= report["verify"]["max_rel"] <= 1e-4
    assert len(report["steps"]) == 3
    for step in report["steps"]:
        assert step["status"] == "pruned"
        assert step["active_after"] == step["channels"] // 2
        assert step["objects"] == 36
        assert step["classes"] == [0, 1, 2]
    page = (finished.folder / "report.html").read_text()
    assert all(step["layer"] in page for step in report["steps"])


def test_plain_ultralytics_loads_the_weights_and_they_fit_the_plan(finished: Finished) -> None:
    from ultralytics import YOLO

    network: Any = YOLO(finished.folder / "weights" / "pruned.pt").model
    plan = PrunePlan.load(finished.folder / "plan.json")
    assert plan.layers
    for layer in plan.layers:
        assert network.get_submodule(layer.name).out_channels == len(layer.keep)


def test_a_second_run_gets_a_folder_of_its_own(run: Any, data: Path, finished: Finished) -> None:
    before = {p: p.stat().st_mtime_ns for p in finished.folder.rglob("*")}
    project = finished.folder.parent
    code, out, err = run(
        "prune", MODEL, "--data", data, *QUICK, "--project", project, "--layer", "model.5.conv",
        "--layer", "model.1.conv", "--mode", "mask",
    )  # fmt: skip
    assert code == 0, err
    assert f"results in {project / 'yolov8n-2'}" in out
    assert out.index("model.1.conv") < out.index("model.5.conv")
    report = json.loads((project / "yolov8n-2" / "report.json").read_text())
    assert report["mode"] == "mask"
    assert report["after"]["params"] == report["before"]["params"]
    assert before == {p: p.stat().st_mtime_ns for p in finished.folder.rglob("*")}


def test_unreadable_images_are_left_out_and_named(run: Any, data: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(data.parent, root)
    (root / "images" / "train" / "03.png").write_text("no image")
    code, out, err = run(
        "prune", MODEL, "--data", root / data.name, *QUICK, "--layers", 1, "--project", tmp_path / "runs"
    )
    assert (code, err) == (0, "")
    (warning,) = (line for line in out.splitlines() if line.startswith("warning: "))
    assert "03.png" in warning
    report = json.loads((tmp_path / "runs" / "yolov8n" / "report.json").read_text())
    assert report["unreadable"] == ["03.png"]
    assert report["settings"]["images"] == 11


def test_unreadable_validation_images_are_named_as_well(run: Any, data: Path, tmp_path: Path) -> None:
    """They were left out without a word, and the accuracy was that of the others."""
    root = tmp_path / "data"
    shutil.copytree(data.parent, root)
    (root / "images" / "val" / "01.png").write_text("no image")
    code, out, err = run(
        "prune", MODEL, "--data", root / data.name, *QUICK[:-1], "--layers", 1, "--project", tmp_path / "runs"
    )
    assert (code, err) == (0, "")
    (warning,) = (line for line in out.splitlines() if line.startswith("warning: "))
    assert "accuracy is measured on, 1: 01.png" in warning
    folder = tmp_path / "runs" / "yolov8n"
    report = json.loads((folder / "report.json").read_text())
    assert (report["unreadable"], report["unreadable_val"]) == ([], ["01.png"])
    assert "left out of the validation images" in (folder / "report.html").read_text()


def test_other_images_before_and_after_are_an_error(data: Path, tmp_path: Path) -> None:
    """The difference of two accuracies means nothing where they were measured on different images."""
    root = tmp_path / "data"
    shutil.copytree(data.parent, root)

    def begins(name: str, _images: int | None) -> None:
        if name == "measure after":
            (root / "images" / "val" / "01.png").write_text("no image")

    options: Any = {"match": "all", "imgsz": 64, "keep": 0.5, "layers": 1}
    with pytest.raises(ChangedError, match=r"on 2 images before and on 1 after: 1 gone .*01\.png"):
        prune(MODEL, root / data.name, listener=Listener(stage=begins), **options)


def test_the_demo_keeps_its_files_where_it_is_told_to(
    run: Any, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import seqprune.demo.run
    from seqprune.run import prune

    def quick(folder: Path, *, seed: int, listener: Any) -> Any:
        (folder / "digits").mkdir(parents=True)
        quickly: dict[str, Any] = {"match": "all", "keep": 0.5, "imgsz": 64, "val": False}
        return prune(MODEL, data, layers=["model.1.conv"], seed=seed, listener=listener, **quickly)

    monkeypatch.setattr(seqprune.demo.run, "demo", quick)
    code, out, err = run("demo", "--keep-files", tmp_path / "new" / "kept")
    assert code == 0, err
    assert "step 1  block 1  model.1.conv" in out
    assert f"files in {tmp_path / 'new' / 'kept'}" in out
    assert {p.name for p in (tmp_path / "new" / "kept").iterdir()} == {
        "digits", "weights", "plan.json", "report.json", "drawn.json", "report.html",
    }  # fmt: skip
