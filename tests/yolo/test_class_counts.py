"""Networks of one class and of two, and data of more classes than the network's."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import nn
from ultralytics.nn.tasks import DetectionModel, yaml_model_load

import seqprune
from seqprune.errors import DataError, InputError
from seqprune.yolo import DetectionImages, finetune
from seqprune.yolo.data.classes import fitted
from seqprune.yolo.files.load import load
from seqprune.yolo.files.save import save_pt
from seqprune.yolo.task.validate import validate
from seqprune.yolo.train.job import train

QUICK = {"preset": "accurate", "target": "params=0.8", "imgsz": 64}


def network(*names: str) -> nn.Module:
    """A YOLOv8 of an eighth of the width."""
    torch.manual_seed(0)
    cfg = yaml_model_load("yolov8n.yaml") | {"scales": {"n": [0.33, 0.125, 256]}, "nc": len(names)}
    model = DetectionModel(cfg, verbose=False).eval()
    model.names, model.task, model.args = dict(enumerate(names)), "detect", {"imgsz": 64, "task": "detect"}
    return model


@pytest.fixture
def item(tmp_path: Path) -> Path:
    """What Ultralytics leaves of a training with single_cls."""
    return save_pt(network("item"), tmp_path / "item.pt", names={0: "item"}, train_args={"single_cls": True})


def test_one_class_is_refused_by_the_preset_that_needs_two_and_another_is_named(item: Path, data_yaml: Path) -> None:
    """It said to use more images, or --match all: neither helps."""
    with pytest.raises(InputError, match=r"has one class.*--preset accurate"):
        seqprune.prune(item, data_yaml, imgsz=64)


def test_one_class_is_pruned_by_the_preset_that_is_named(item: Path, data_yaml: Path) -> None:
    """Trained with single_cls, its data of two classes was refused as made for another model."""
    result = seqprune.prune(item, data_yaml, **QUICK)
    assert result.record.after.map50_95 is not None
    assert result.names == {0: "item"}


def test_too_few_objects_of_a_class_name_the_preset_too(data_yaml: Path) -> None:
    for file in (data_yaml.parent / "labels" / "train").iterdir():
        file.write_text("0 0.5 0.5 0.2 0.2\n")
    with pytest.raises(InputError, match="preset accurate, which needs no classes"):
        seqprune.prune(network("green", "red"), data_yaml, imgsz=64, match="all", layers=1)


@pytest.mark.parametrize("preset", ["seed", "accurate"])
def test_two_classes_are_pruned(data_yaml: Path, preset: str) -> None:
    settings = {"match": "all", "layers": 1, "keep": 0.5} if preset == "seed" else {"target": "params=0.8"}
    result = seqprune.prune(network("green", "red"), data_yaml, imgsz=64, preset=preset, val=False, **settings)
    assert result.record.after.params < result.record.before.params


def test_a_network_of_one_item_sees_every_class_as_one(data_yaml: Path) -> None:
    kinds = torch.cat([batch.classes for batch in DetectionImages(data_yaml, names={0: "item"}, imgsz=64)])
    whole = torch.cat([batch.classes for batch in DetectionImages(data_yaml, imgsz=64)])
    assert len(kinds) == len(whole)
    assert set(kinds.tolist()) == {0}
    assert set(whole.tolist()) == {0, 1}
    assert validate(network("item"), data_yaml, imgsz=64).map50_95 >= 0


def test_classes_that_a_network_does_not_have_are_left_out_by_name(data_yaml: Path) -> None:
    red = torch.cat([batch.classes for batch in DetectionImages(data_yaml, names={0: "red"}, imgsz=64, some=True)])
    whole = torch.cat([batch.classes for batch in DetectionImages(data_yaml, imgsz=64)])
    assert red.tolist() == [0] * int((whole == 1).sum())
    with pytest.raises(DataError, match="has 2 classes but the model has 1"):
        DetectionImages(data_yaml, names={0: "red"}, imgsz=64)


def test_other_classes_are_refused() -> None:
    data = {"names": {0: "green", 1: "red"}, "nc": 2}
    with pytest.raises(DataError, match="has 2 classes but the model has 1"):
        fitted(data, {0: "blue"}, "d.yaml")
    assert fitted(data, {0: "a", 1: "b"}, "d.yaml") is data


def test_a_network_of_one_item_is_trained_on_all_classes_as_one(item: Path, data_yaml: Path, tmp_path: Path) -> None:
    tuned = finetune(load(item).model, data_yaml, epochs=1, imgsz=64)
    assert tuned.names == {0: "item"}
    small = seqprune.prune(item, preset="fast", target="params=0.7", imgsz=64).save(tmp_path / "small.pt")
    done = train(small, data_yaml, tmp_path / "run", epochs=1, arguments={"imgsz": 64, "device": "cpu"})
    assert load(done.best).names == {0: "item"}


def test_a_file_that_says_single_cls_is_of_one_item_whatever_its_name(tmp_path: Path) -> None:
    path = save_pt(network("cell"), tmp_path / "m.pt", names={0: "cell"}, train_args={"single_cls": True})
    assert load(path).names == {0: "item"}
    assert load(save_pt(network("cell"), tmp_path / "n.pt", names={0: "cell"})).names == {0: "cell"}
    assert deepcopy(load(path).model).names == {0: "item"}
