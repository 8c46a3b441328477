"""``seqprune prune`` for a network that classifies: a folder of images in, top-1 and top-5 accuracy out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

MODEL = "yolov8n-cls.yaml"
QUICK = ("--match", "all", "--keep", "0.5", "--batch", "8", "--layer", "model.1.conv")
CLASSES = 3


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The network of the YAML for three classes, with random weights."""
    import yaml
    from ultralytics.nn.tasks import yaml_model_load

    described = dict(yaml_model_load(MODEL)) | {"nc": CLASSES}
    for key in ("scale", "yaml_file"):
        described.pop(key, None)
    path = tmp_path / MODEL
    path.write_text(yaml.safe_dump(described))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six training and two validation images of each of three colours."""
    root = tmp_path / "colours"
    for split, count in (("train", 6), ("val", 2)):
        for kind, name in enumerate(("blue", "green", "red")):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                colour = [30 + 5 * number] * 3
                colour[2 - kind] += 150
                Image.new("RGB", (48, 32), tuple(colour)).save(root / split / name / f"{number}.png")
    return root


@pytest.mark.parametrize("finetune", [(), ("--finetune", 1, "--finetune-step", 1)])
def test_accuracy_is_top_1_and_top_5(
    run: Any, model: Path, folder: Path, tmp_path: Path, finetune: tuple[object, ...]
) -> None:
    before = {file: file.stat().st_mtime_ns for file in (folder, *folder.rglob("*"))}
    code, out, err = run(
        *("prune", model, "--data", folder, *QUICK, *finetune, "--imgsz", 32),
        *("--project", tmp_path / "runs", "--name", "one"),
    )
    assert code == 0, err
    assert "top-1 accuracy" in out
    assert "mAP" not in out
    report = json.loads((tmp_path / "runs" / "one" / "report.json").read_text())
    for when in ("before", "after"):
        assert report[when].keys() == {"params", "gflops", "latency_ms", "file_bytes", "top1", "top5"}
        assert 0 <= report[when]["top1"] <= report[when]["top5"] == 1
    assert report["steps"][0]["objects"] == 18
    page = (tmp_path / "runs" / "one" / "report.html").read_text()
    assert "top-5 accuracy" in page
    assert "Accuracy was not measured" not in page
    assert before == {file: file.stat().st_mtime_ns for file in (folder, *folder.rglob("*"))}


def test_images_are_as_large_as_classifiers_are_trained_with(
    run: Any, model: Path, folder: Path, tmp_path: Path
) -> None:
    code, _, err = run("prune", model, "--data", folder, *QUICK, "--no-val", "--project", tmp_path / "runs")
    assert code == 0, err
    report = json.loads((tmp_path / "runs" / "yolov8n-cls" / "report.json").read_text())
    assert report["settings"]["imgsz"] == 224
    assert report["before"]["top1"] is None
    assert "Accuracy was not measured" in (tmp_path / "runs" / "yolov8n-cls" / "report.html").read_text()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (shutil.rmtree, "colours: no such folder; for classification give one with train and val, a folder a class"),
        (lambda root: shutil.rmtree(root / "train" / "red"), "has 2 classes but the model has 3"),
        (
            lambda root: [shutil.rmtree(root / "train" / name) for name in ("red", "blue")],
            "has one class, green; give a folder for each of two classes or more",
        ),
    ],
)
def test_folders_that_cannot_be_used(
    run: Any, model: Path, folder: Path, tmp_path: Path, spoil: Callable[[Path], object], said: str
) -> None:
    spoil(folder)
    code, _, err = run("prune", model, "--data", folder, "--imgsz", 32, "--project", tmp_path / "runs")
    assert code == 2
    assert said in err
    assert err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_a_data_yaml_is_for_boxes(run: Any, model: Path, data: Path, tmp_path: Path) -> None:
    code, _, err = run("prune", model, "--data", data, "--project", tmp_path / "runs")
    assert code == 2
    assert "data.yaml: no such folder; for classification give one" in err


def test_methods_are_compared_and_layers_measured_by_top_1(run: Any, model: Path, folder: Path, tmp_path: Path) -> None:
    """They were for detectors alone."""
    how = ("--data", folder, "--imgsz", 32, "--batch", 8)
    options = ("--target", "flops=0.8", "--methods", "l1-global,accurate,imgsz", "--images", 8)
    code, out, err = run("compare", model, *how, *options, "--subsets", 2, "--out", tmp_path / "compared")
    assert code == 0, err
    assert "top-1 accuracy" in out
    found = json.loads((tmp_path / "compared" / "compare.json").read_text())
    whole, *rows = found["rows"]
    assert [*whole["accuracy"]] == ["top1", "top5"]
    assert [len(row["runs"]) for row in rows] == [2, 2, 2]
    assert rows[2]["imgsz"] < 32
    assert found["settings"]["subsets"] == "2, disjoint"
    out_file = tmp_path / "found.json"
    layers = ("--layers", "model.1.conv", "--ratios", "0.5", "--images", 3, "--out", out_file)
    assert run("sensitivity", model, *how, *layers).code == 0
    found = json.loads(out_file.read_text())
    assert found["metric"] == "top1"
    assert found["points"][0]["accuracy"] in [pytest.approx(hits / 3) for hits in range(4)]
