"""What a repair is judged by: the loss of the task, or how far detections are from the unpruned network's."""

from __future__ import annotations

from copy import deepcopy
from math import log
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from seqprune.observe.batch import Batch
from seqprune.testing.networks import randomise
from seqprune.yolo.data.images import DetectionImages
from seqprune.yolo.task.judge import BY_BOXES, apart, distance, judge_for
from seqprune.yolo.task.loss import training_loss
from seqprune.yolo.task.probe import object_weights


class Says(nn.Module):
    """A network that detects the same in every image."""

    def __init__(self, found: torch.Tensor) -> None:
        super().__init__()
        self.found = nn.Parameter(found)

    def forward(self, _images: torch.Tensor) -> torch.Tensor:
        return self.found


@pytest.fixture
def seeing(tiny: nn.Module) -> nn.Module:
    """A detector that is sure of something."""
    network = deepcopy(tiny)
    for branch in network.model[-1].cv3:  # type: ignore[union-attr,index]
        branch[-1].bias.data.fill_(1.0)
    return network


def cells(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows).T[None]


def test_parts_of_the_distance_are_those_of_their_formulas() -> None:
    """One object of confidence 0.8, sides 10 and 20, one number besides; cells without an object count for nothing."""
    wanted = cells([50, 50, 10, 20, 0.8, 0.1, 2.0], [90, 90, 10, 20, 0.01, 0.01, 7.0])
    found = cells([51, 50, 10, 24, 0.6, 0.1, 3.0], [10, 10, 30, 30, 0.9, 0.90, 0.0])
    worth = object_weights(wanted, 2)
    classes, boxes, rest = apart(found, wanted, worth, 2)
    assert float(classes) == pytest.approx(0.8 * (0.8 * log(0.8 / 0.6) + 0.2 * log(0.2 / 0.4)), rel=1e-5)
    assert float(boxes) == pytest.approx(0.8 * (0.1**2 + 0.2**2), rel=1e-5)
    assert float(rest) == pytest.approx(0.8 * (1 / 2) ** 2, rel=1e-5)
    assert [float(part) for part in apart(wanted, wanted, worth, 2)] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("task", BY_BOXES)
def test_of_labels_that_are_read_as_boxes_the_unpruned_network_is_the_measure(
    task: str, network: nn.Module, images: Path
) -> None:
    """Ultralytics' losses of these tasks ask for masks, key points or angles."""
    randomise(network, 0)
    held = DetectionImages(images, imgsz=64, batch=4, task=task)
    judge = judge_for(network, held, 2)
    assert judge is not None
    other = deepcopy(network)
    last = [m for m in other.modules() if isinstance(m, nn.Conv2d)][-4:]
    distances = [judge(network)]
    for _ in range(2):
        for conv in last:
            conv.weight.data.mul_(1.1)
        distances.append(judge(other))
    assert distances[0] == 0
    assert 0 < distances[1] < distances[2]


def test_labels_are_not_asked_where_detections_are_the_measure(seeing: nn.Module, data_yaml: Path) -> None:
    """Of images some of which have no labels, which no file says, a network that finds nothing had the least loss: what
    a repair had mended was thrown away."""
    held = DetectionImages(data_yaml, imgsz=64, batch=4)
    judge = judge_for(seeing, held, 2)
    assert judge is not None
    assert getattr(judge, "func", None) is distance
    blind = deepcopy(seeing)
    for branch in blind.model[-1].cv3:  # type: ignore[union-attr,index]
        branch[-1].bias.data.fill_(-20.0)
    assert judge(seeing) == 0.0 < judge(blind)


def test_what_is_found_where_nothing_was_counts_too() -> None:
    """One that detects everything everywhere would else be as good as the unpruned network."""
    nothing, something = (cells([50, 50, 10, 20, score, 0.01]) for score in (0.01, 0.9))
    none = torch.zeros(0, dtype=torch.int64)
    images: Any = [Batch(torch.zeros(1, 3, 32, 32), none, none)]
    divergence = 0.01 * log(0.01 / 0.9) + 0.99 * log(0.99 / 0.1)
    assert distance(Says(something), Says(nothing), images, 2) == pytest.approx(2 * 0.9 * divergence, rel=1e-4)
    assert distance(Says(nothing), Says(nothing), images, 2) == 0.0


def test_a_detector_that_detects_nothing_is_judged_by_its_loss(tiny: nn.Module, data_yaml: Path) -> None:
    held = DetectionImages(data_yaml, imgsz=64, batch=4)
    judge = judge_for(tiny, held, 2)
    assert judge is not None
    assert judge(tiny) == training_loss(tiny, held)
