"""Images without labels, and data without val: asked for only where the settings use them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

import seqprune
from seqprune.engine.listener import Listener
from seqprune.errors import DataError, UnlabelledError
from seqprune.yolo import DetectionImages, finetune
from seqprune.yolo.data.images import ClassificationImages
from seqprune.yolo.task.judge import distance, judge_for

ACCURATE = {"preset": "accurate", "target": "params=0.8", "imgsz": 64, "batch": 4}


@pytest.fixture
def unlabelled(data_yaml: Path) -> Path:
    """The same images, and no folder of labels."""
    shutil.rmtree(data_yaml.parent / "labels")
    return data_yaml


def prune(model: nn.Module, data: Path, **settings: object) -> tuple[seqprune.PruneResult, list[str]]:
    """The result, and every warning but those of what was timed, which a busy machine gives or not."""
    said: list[str] = []
    result = seqprune.prune(model, data, listener=Listener(warning=said.append), **ACCURATE | settings)
    return result, [line for line in said if "of the time in" not in line]


def test_accurate_needs_no_labels(tiny: nn.Module, unlabelled: Path) -> None:
    """Sixteen unlabelled images stopped it, though it reads no label."""
    result, said = prune(tiny, unlabelled)
    assert result.record.settings["images"] == 10
    assert result.record.after.params < result.record.before.params
    assert result.record.repairs[0].before is not None
    assert result.record.after.map50_95 is None
    assert [text for text in said if "accuracy is not measured: no labelled object" in text] == said


def test_repairs_are_judged_by_the_unpruned_network_where_nothing_is_labelled(
    tiny: nn.Module, unlabelled: Path
) -> None:
    """By the loss on images without objects, whoever finds least is best."""
    images = DetectionImages(unlabelled, imgsz=64, names=tiny.names, labelled=False)
    judge = judge_for(tiny, images, 2)
    assert judge is not None
    assert images.objects == 0
    assert judge(tiny) == 0.0
    assert getattr(judge, "func", None) is distance


def test_background_images_count_as_images(tiny: nn.Module, data_yaml: Path) -> None:
    for file in sorted((data_yaml.parent / "labels" / "train").iterdir())[:5]:
        file.unlink()
    images = DetectionImages(data_yaml, imgsz=64)
    assert images.image_count == 10
    assert images.objects == sum(len(batch.classes) for batch in images) > 0
    assert images.unreadable == ()


@pytest.mark.parametrize("settings", [{"preset": "seed", "target": None}, {"preset": "fast", "criterion": "taylor"}])
def test_settings_that_use_labels_ask_for_them(tiny: nn.Module, unlabelled: Path, settings: dict[str, object]) -> None:
    with pytest.raises(UnlabelledError, match="no labelled object"):
        prune(tiny, unlabelled, val=False, **settings)


@pytest.mark.parametrize("val", [True, pytest.param(False, marks=pytest.mark.long)])
def test_a_yaml_without_val_suffices_to_prune(tiny: nn.Module, data_yaml: Path, val: bool) -> None:
    text = data_yaml.read_text().replace("val: images/val\n", "")
    data_yaml.write_text(text)
    result, said = prune(tiny, data_yaml, val=val, finetune=1)
    assert result.record.after.map50_95 is None
    assert len(said) == val
    assert all("accuracy is not measured" in line and "'val'" in line for line in said)
    assert data_yaml.read_text() == text


def test_a_relative_root_is_found_from_a_yaml_without_val(
    tiny: nn.Module, data_yaml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data_yaml.parent)
    data_yaml.write_text("path: .\ntrain: images/train\nnames: [green, red]\n")
    assert DetectionImages("data.yaml", imgsz=64).image_count == 10
    with pytest.raises(DataError, match="the key val is missing"):
        DetectionImages("data.yaml", split="val", imgsz=64)


def test_training_says_that_it_needs_labels(tiny: nn.Module, unlabelled: Path) -> None:
    with pytest.raises(DataError, match="no labelled object"):
        finetune(tiny, unlabelled, epochs=1, imgsz=64)


@pytest.mark.parametrize("task", ["classify"])
def test_a_folder_without_val_suffices_to_prune_a_classifier(network: nn.Module, images: Path, task: str) -> None:
    shutil.rmtree(images / "val")
    result, said = prune(network, images, finetune=1)
    assert result.record.after.params < result.record.before.params
    assert len(said) > 0
    assert "accuracy is not measured" in "".join(said)
    assert prune(network, images, val=False)[0].metrics.keys() == result.metrics.keys()


def flattened(images: Path) -> Path:
    """The train images of a folder a class, in one folder alone."""
    flat = images.parent / "flat"
    flat.mkdir()
    for file in sorted((images / "train").rglob("*.png")):
        shutil.copy(file, flat / file.name)
    return flat


@pytest.mark.parametrize("task", ["classify"])
@pytest.mark.parametrize("split", ["", "train"])
def test_a_classifier_is_pruned_with_images_in_no_folder_a_class(network: nn.Module, images: Path, split: str) -> None:
    """It asked for folders of classes, and ``accurate`` reads none of them."""
    flat = flattened(images)
    data = flat
    if split:
        data = flat.rename(images.parent / "data2").parent / "data2"
        (data / split).mkdir()
        for file in data.glob("*.png"):
            file.rename(data / split / file.name)
    result, said = prune(network, data, finetune=0)
    assert result.record.settings["images"] == 12
    assert result.record.after.params < result.record.before.params
    assert result.record.after.top1 is None
    assert [line for line in said if "accuracy is not measured" in line and "lie in no folder a class" in line]
    with_folders, _ = prune(network, images, val=False)
    assert {layer.name for layer in with_folders.plan.layers} == {layer.name for layer in result.plan.layers}


@pytest.mark.parametrize("task", ["classify"])
def test_images_in_no_folder_are_seen_as_those_in_folders(images: Path) -> None:
    (images / "train" / "red" / "bad.png").write_bytes(b"no image")
    flat = flattened(images)
    (flat / "notes.txt").write_text("")
    loose = ClassificationImages(flat, imgsz=64, batch=12, labelled=False)
    classed = ClassificationImages(images, imgsz=64, batch=12)
    assert loose.unreadable == ("bad.png",)
    assert (loose.objects, loose.image_count, classed.objects) == (0, 12, 12)
    mine, theirs = next(iter(loose)), next(iter(classed))
    assert len(mine.classes) == len(mine.image_index) == 0
    order = [[file.name for file in classed.files].index(file.name) for file in loose.files]
    assert torch.equal(mine.images, theirs.images[order])
    assert len({*loose.files}) == 12
    assert loose.only(loose.files[:3]).image_count == 3


@pytest.mark.parametrize("task", ["classify"])
def test_what_uses_classes_says_that_images_lie_in_no_folder(network: nn.Module, images: Path) -> None:
    flat = flattened(images)
    for settings in ({"preset": "seed", "target": None}, {"preset": "fast", "criterion": "taylor"}):
        with pytest.raises(DataError, match="lie in no folder a class") as said:
            prune(network, flat, val=False, **settings)
        assert "\n" not in str(said.value)
    with pytest.raises(UnlabelledError, match="lie in no folder a class"):
        finetune(network, flat, epochs=1, imgsz=64)
    with pytest.raises(DataError, match="no such folder"):
        prune(network, flat / "nowhere")
    with pytest.raises(DataError, match="has no folder train"):
        prune(network, images / "train")
