"""Stand-ins for the weights and images that pages name."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from PIL import Image


@pytest.fixture
def stand_ins(tmp_path: Path) -> Path:
    """A folder with ``yolov8n.pt`` (random weights) and ``coco128.yaml`` (four small images of noise)."""
    from ultralytics import YOLO

    torch.manual_seed(0)
    YOLO("yolov8n.yaml").save(tmp_path / "yolov8n.pt")
    draw = random.Random(0)  # noqa: S311 - no secret
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (tmp_path / "noise" / kind / split).mkdir(parents=True)
        for number in range(4):
            pixels = bytes(draw.randrange(256) for _ in range(64 * 64 * 3))
            Image.frombytes("RGB", (64, 64), pixels).save(tmp_path / f"noise/images/{split}/{number}.png")
            (tmp_path / f"noise/labels/{split}/{number}.txt").write_text("0 0.5 0.5 0.4 0.4\n1 0.3 0.3 0.2 0.2\n")
    names = "".join(f"  {number}: class{number}\n" for number in range(80))
    (tmp_path / "coco128.yaml").write_text(
        f"path: {tmp_path / 'noise'}\ntrain: images/train\nval: images/val\nnames:\n{names}"
    )
    return tmp_path
