"""Predicted boxes are Ultralytics' own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from ultralytics import YOLO
from ultralytics.nn.tasks import DetectionModel

from seqprune.yolo.data.images import DetectionImages
from seqprune.yolo.files.load import load
from seqprune.yolo.task.predict import predict


def test_boxes_are_sorted_and_bounded(tiny: nn.Module) -> None:
    found = predict(tiny, torch.rand(2, 3, 64, 96), conf=0.0, max_det=7)
    assert [boxes.shape for boxes in found] == [(7, 6), (7, 6)]
    for boxes in found:
        assert (boxes[:-1, 4] >= boxes[1:, 4]).all()
        assert set(boxes[:, 5].tolist()) <= {0.0, 1.0}


def test_nothing_confident_gives_no_boxes(tiny: nn.Module) -> None:
    assert [boxes.shape for boxes in predict(tiny, torch.rand(1, 3, 64, 64), conf=0.99)] == [(0, 6)]


def test_the_model_can_still_be_trained_afterwards(tiny: nn.Module) -> None:
    predict(tiny, torch.rand(1, 3, 64, 64))
    tiny(torch.rand(1, 3, 64, 64))[0].sum().backward()


def test_an_end_to_end_head_is_only_filtered() -> None:
    model = DetectionModel("yolov10n.yaml", nc=2, verbose=False).eval()
    (boxes,) = predict(model, torch.rand(1, 3, 64, 64), conf=0.0, max_det=5)
    assert boxes.shape == (5, 6)


@pytest.mark.real
def test_real_boxes_equal_those_of_yolo_predict(real: Path) -> None:
    weights = real / "weights" / "yolov8n.pt"
    images = DetectionImages(real / "coco128" / "data.yaml", split="val", imgsz=320, batch=4, images=4)
    (batch,) = list(images)
    pixels = batch.images.float() / 255
    ours = predict(load(weights).model, pixels)
    theirs = YOLO(weights).predict(pixels, conf=0.25, iou=0.7, verbose=False, device="cpu")
    assert sum(len(boxes) for boxes in ours) > 4
    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one, other.boxes.data, atol=1e-2)
