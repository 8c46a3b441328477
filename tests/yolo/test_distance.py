"""The distance of detections: none to itself, more the more is changed, none asked of what has no cells."""

from __future__ import annotations

from copy import deepcopy

import torch
from networks import randomise
from torch import nn

from seqprune.observe.batch import Batch
from seqprune.yolo.distance import BOX_WEIGHT, _apart, detection_distance
from seqprune.yolo.load import load


def batches(count: int = 2, side: int = 160) -> list[Batch]:
    draw = torch.Generator().manual_seed(0)
    none = torch.zeros(0, dtype=torch.int64)
    pixels = [torch.randint(0, 256, (1, 3, side, side), dtype=torch.uint8, generator=draw) for _ in range(count)]
    return [Batch(images, none, none, torch.zeros(0, 4)) for images in pixels]


def test_it_grows_with_the_change() -> None:
    torch.manual_seed(0)
    model: nn.Module = load("yolov8n.yaml").model
    randomise(model, 0)
    distance = detection_distance(model, batches(), 80)
    assert distance is not None
    assert distance(model) == 0
    found = []
    for size in (0.01, 0.1):
        changed = deepcopy(model)
        with torch.no_grad():
            changed.get_submodule("model.5.conv").weight.mul_(1 + size)
        found.append(distance(changed))
    assert 0 < found[0] < found[1]


def test_the_formula_by_hand() -> None:
    """One cell at even odds whose logit moves by two, its box by a tenth of its side: one and a half."""
    before = torch.tensor([100.0, 50, 20, 10, 0.5])[None, :, None].double()
    after = before.clone()
    after[0, 0] += 2  # a tenth of the width
    after[0, 4] = torch.sigmoid(torch.tensor(2.0).double())
    assert abs(_apart(before, after, 1) - (2**2 * 0.25 + BOX_WEIGHT * 0.1**2 * 0.5)) < 1e-6


def test_detectors_without_one_prediction_a_cell_are_not_asked() -> None:
    class TopK(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.zeros(len(images), 300, 6)

    assert detection_distance(TopK(), batches(1), 80) is None
