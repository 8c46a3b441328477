"""Gradients of Ultralytics' own loss, with the model left as it was."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import nn

from seqprune.errors import DataError, ModelError
from seqprune.yolo import DetectionImages
from seqprune.yolo.task.gradients import loss_gradients


def images(data_yaml: Path, batch: int = 2) -> DetectionImages:
    return DetectionImages(data_yaml, imgsz=64, batch=batch, images=4)


def test_gradients_are_those_of_the_loss_and_the_model_is_not_touched(data_yaml: Path, tiny: nn.Module) -> None:
    weights, keys = deepcopy(tiny.state_dict()), set(vars(tiny))
    found = loss_gradients(tiny, images(data_yaml))
    assert found.keys() == dict(tiny.named_parameters()).keys()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in tiny.state_dict().items())
    assert all(parameter.grad is None for parameter in tiny.parameters())
    assert set(vars(tiny)) == keys
    assert tiny.args == {"imgsz": 64, "task": "detect"}
    for name in ("model.0.conv.weight", "model.22.cv2.0.2.bias", "model.4.m.0.cv1.bn.weight"):
        assert found[name].abs().max() > 0


def test_gradients_are_those_of_training_with_frozen_statistics(data_yaml: Path, tiny: nn.Module) -> None:
    """The head as the trainer runs it, labels as Ultralytics converts them, one backward pass a batch."""
    from ultralytics.cfg import get_cfg
    from ultralytics.utils.ops import xyxy2xywhn

    seen = images(data_yaml)
    found = loss_gradients(tiny, seen)
    model = deepcopy(tiny).eval()
    model.model[-1].training = True
    model.args = get_cfg()
    for batch in seen:
        height, width = batch.images.shape[-2:]
        labels = {
            "batch_idx": batch.image_index.float(),
            "cls": batch.classes.float(),
            "bboxes": xyxy2xywhn(batch.boxes, w=width, h=height),
        }
        model.loss(labels, model(batch.images / 255))[0].sum().backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(found[name], parameter.grad / 4, rtol=1e-3, atol=1e-5, msg=name)


def test_no_images_and_no_detector_are_said(data_yaml: Path, tiny: nn.Module) -> None:
    with pytest.raises(DataError, match="at least one"):
        loss_gradients(tiny, [])  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="cannot be taken"):
        loss_gradients(nn.Conv2d(3, 1, 1), images(data_yaml))
