"""Segmentation, pose and oriented boxes are pruned by the boxes of their objects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from seqprune.run import prune
from seqprune.yolo.data.images import DetectionImages
from seqprune.yolo.files.load import load
from seqprune.yolo.files.save import save_pt
from seqprune.yolo.task.predict import _upright, predict

NAMES = {0: "green", 1: "red"}
BOXED = ["segment", "pose", "obb"]


@pytest.mark.parametrize("task", BOXED)
def test_the_objects_are_the_boxes_of_the_labels(task: str, images: Path) -> None:
    batches = list(DetectionImages(images, split="train", imgsz=64, batch=8, task=task))
    boxes = torch.cat([batch.boxes for batch in batches])
    assert len(boxes) == 12
    side = boxes[:, 2:] - boxes[:, :2]
    assert torch.allclose(side, torch.full_like(side, 0.3 * 64), atol=0.1)


@pytest.mark.parametrize("task", BOXED)
def test_predictions_are_boxes(task: str, network: nn.Module) -> None:
    found = predict(network, torch.rand(2, 3, 64, 64), conf=0.0)
    assert len(found) == 2
    assert all(rows.shape[1] == 6 and len(rows) for rows in found)
    assert all(set(rows[:, 5].tolist()) <= {0.0, 1.0} for rows in found)
    assert all((rows[:, 2:4] >= rows[:, :2]).all() for rows in found)


def test_the_box_around_a_turned_one() -> None:
    turned = torch.tensor(
        [[10.0, 20.0, 8.0, 2.0, 0.5, 1.0, torch.pi / 2], [0.0, 0.0, 2.0, 2.0, 0.9, 0.0, torch.pi / 4]]
    )
    root = 2**0.5
    expected = torch.tensor([[9.0, 16.0, 11.0, 24.0, 0.5, 1.0], [-root, -root, root, root, 0.9, 0.0]])
    assert torch.allclose(_upright(turned), expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("task", BOXED)
def test_the_whole_job(task: str, network: nn.Module, images: Path, tmp_path: Path) -> None:
    path = save_pt(network, tmp_path / "m.pt", names=NAMES)
    given = {"imgsz": 64, "match": "all", "keep": 0.5, "layers": ["model.5.conv", "model.3.conv"], "batch": 4}
    result = prune(path, images, finetune=1, finetune_step=1, **given)
    assert [step.status for step in result.steps] == ["pruned", "pruned"]
    assert result.record.after.params < result.record.before.params
    assert result.record.after.map50_95 is not None
    for name in ("saved.pt", "saved.safetensors"):
        loaded = load(result.save(tmp_path / name), tasks=[task])
        assert (loaded.task, loaded.plan) == (task, result.plan)


@pytest.mark.parametrize("task", [BOXED[0], *(pytest.param(task, marks=pytest.mark.long) for task in BOXED[1:])])
def test_the_whole_network_to_a_target(task: str, network: nn.Module, images: Path) -> None:
    given: dict[str, Any] = {"imgsz": 64, "batch": 4, "val": False}
    result = prune(network, images, preset="accurate", target="params=0.7", **given)
    assert result.record.after.params / result.record.before.params == pytest.approx(0.7, abs=0.02)
    assert [repair.step for repair in result.record.repairs] == ["ls"]
