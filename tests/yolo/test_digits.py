"""A classifier that was trained, pruned by what its channels do at each handwritten digit."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn

from seqprune.run import prune
from seqprune.yolo import ClassificationImages
from seqprune.yolo.files.networks import build
from seqprune.yolo.train.tuning import finetune

pytestmark = pytest.mark.slow
TRAINING: dict[str, Any] = {"lr0": 2e-3, "fliplr": 0.0, "erasing": 0.0, "auto_augment": None, "scale": 0.2}
LOOK: dict[str, Any] = {"imgsz": 32, "images": 256, "batch": 16}


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("digits")
    for number, (image, digit) in enumerate(zip(*load_digits(return_X_y=True), strict=True)):
        file = root / ("train" if number % 4 else "val") / str(digit) / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((15 * image.reshape(8, 8)).astype("uint8")).resize((32, 32)).convert("RGB").save(file)
    return root


@pytest.fixture(scope="module")
def reader(digits: Path) -> nn.Module:
    from ultralytics.nn.tasks import yaml_model_load

    described = deepcopy(yaml_model_load("yolov8n-cls.yaml")) | {"scales": {"n": [0.33, 0.125, 256]}}
    torch.manual_seed(0)
    network = build("classify", described, 10)
    network.task, network.args = "classify", {}  # type: ignore[assignment]
    return finetune(network, digits, epochs=6, imgsz=32, batch=32, **TRAINING)


def test_layers_are_pruned_by_the_digits_it_reads(digits: Path, reader: nn.Module) -> None:
    record = prune(reader, digits, layers=5, blocks=range(1, 9), keep=0.6, recover="ls", **LOOK).record
    assert record.before.top1 > (0.85 if torch.__version__.startswith("2.4.") else 0.9)  # it learns less there
    seen = ClassificationImages(digits, names=reader.names, **LOOK)
    with torch.no_grad():
        read = sum(int((reader(batch.images)[0].argmax(1) == batch.classes).sum()) for batch in seen)
    for step in record.steps:
        assert (step.status, step.objects, step.classes) == ("pruned", read, tuple(range(10)))
    assert record.after.top1 > record.before.top1 - 0.15


def test_half_of_the_parameters_leave_without_training(digits: Path, reader: nn.Module) -> None:
    record = prune(reader, digits, preset="accurate", target="params=0.5", round_to=1, **LOOK).record
    assert record.after.params <= 0.52 * record.before.params
    assert record.after.top1 > record.before.top1 - 0.15
