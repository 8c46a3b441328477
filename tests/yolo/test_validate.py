"""Accuracy is Ultralytics' own, and nothing is left behind."""

from __future__ import annotations

import math
import shutil
import tempfile
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
import ultralytics
from torch import nn
from ultralytics import YOLO

from seqprune.errors import DataError, InputError, ModelError
from seqprune.yolo.files.load import load
from seqprune.yolo.task.validate import _by_objects, validate


def test_nothing_is_written_and_the_model_is_not_touched(
    data_yaml: Path,
    tiny: nn.Module,
    tmp_path: Path,
    listing,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    monkeypatch.chdir(scratch)
    before, weights = listing(data_yaml.parent), deepcopy(tiny.state_dict())
    metrics = validate(tiny, data_yaml, imgsz=64, batch=2)
    assert 0 <= metrics.map50_95 <= metrics.map50 <= 1
    assert 0 <= metrics.by_objects <= 1
    assert listing(data_yaml.parent) == before
    assert not any(scratch.iterdir())
    assert capsys.readouterr() == ("", "")
    assert all(torch.equal(tensor, weights[name]) for name, tensor in tiny.state_dict().items())


def test_by_objects_a_class_counts_as_often_as_it_has_objects() -> None:
    class Found:
        all_ap = np.array([[0.9, 0.7], [0.4, 0.2]])  # of classes 0 and 2
        ap_class_index = np.array([0, 2])

    assert _by_objects(Found(), np.array([3, 0, 1])) == pytest.approx((3 * 0.8 + 1 * 0.3) / 4)
    Found.all_ap = np.zeros((0, 2))
    assert math.isnan(_by_objects(Found(), None))


def test_the_training_split_can_be_measured(data_yaml: Path, tiny: nn.Module) -> None:
    assert validate(tiny, data_yaml, split="train", imgsz=64).map50 >= 0


def test_bad_input_is_refused(data_yaml: Path, tiny: nn.Module) -> None:
    with pytest.raises(InputError, match="at least 1"):
        validate(tiny, data_yaml, batch=0)
    with pytest.raises(DataError, match="no split 'test'"):
        validate(tiny, data_yaml, split="test")
    with pytest.raises(ModelError, match="no class names"):
        validate(nn.Linear(1, 1), data_yaml)
    tiny.names = {0: "one"}
    with pytest.raises(DataError, match="has 2 classes but the model has 1"):
        validate(tiny, data_yaml)


def test_a_half_pruned_model_is_refused_on_one_line(data_yaml: Path, tiny: nn.Module) -> None:
    """The predecessor's failure: a producer and its consumer disagree."""
    consumer = tiny.get_submodule("model.6.cv1.conv")
    consumer.weight = nn.Parameter(consumer.weight.detach()[:, :-1])
    with pytest.raises(ModelError, match="channels") as caught:
        validate(tiny, data_yaml, imgsz=64)
    assert "\n" not in str(caught.value)


@pytest.mark.real
@pytest.mark.slow
def test_real_weights_have_the_accuracy_ultralytics_measures(real: Path) -> None:
    loaded = load(real / "weights" / "yolov8n.pt")
    metrics = validate(loaded.model, real / "coco128" / "data.yaml", imgsz=320, batch=16)
    exact = ultralytics.__version__ == "8.4.190"  # 8.3.200 matches boxes otherwise: 0.3492
    assert metrics.map50_95 == pytest.approx(0.3465, abs=5e-5 if exact else 5e-3)
    assert metrics.map50 == pytest.approx(0.477, abs=5e-4 if exact else 5e-3)


@pytest.mark.real
@pytest.mark.slow
def test_real_accuracy_equals_that_of_yolo_val(real: Path, tmp_path: Path) -> None:
    root = tmp_path / "bccd"
    shutil.copytree(real / "coco128", root, copy_function=shutil.copyfile)
    for split in ("images", "labels"):
        for file in sorted((root / split / "val").iterdir())[16:]:
            file.unlink()
    weights = real / "weights" / "yolov8n.pt"
    arguments = {"imgsz": 160, "batch": 4, "device": "cpu", "plots": False, "verbose": False}
    theirs = YOLO(weights).val(data=str(root / "data.yaml"), project=str(tmp_path / "runs"), **arguments)
    ours = validate(load(weights).model, root / "data.yaml", imgsz=160, batch=4)
    assert (ours.map50_95, ours.map50) == (theirs.box.map, theirs.box.map50)
    assert (ours.precision, ours.recall) == (theirs.box.mp, theirs.box.mr)
    rows = [(row["mAP50-95"], row["Instances"]) for row in theirs.summary(decimals=9)]
    assert ours.by_objects == pytest.approx(sum(ap * n for ap, n in rows) / sum(n for _, n in rows))
