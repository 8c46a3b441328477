"""Images without labels, and data without val: asked for only where the settings use them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from torch import nn

import seqprune
from seqprune.engine.listener import Listener
from seqprune.errors import DataError, UnlabelledError
from seqprune.yolo import DetectionImages, finetune
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


@pytest.mark.parametrize("val", [True, False])
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
