"""What measures a setting on held-out train images."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from benchmarks import halves
from seqprune.errors import InputError
from seqprune.yolo.task import probe


def _detections(*scores: float, side: float = 20.0) -> torch.Tensor:
    """``[1, 4 + classes, 2]``: one box in the first cell, nothing in the second."""
    found = torch.zeros(1, 4 + len(scores), 2)
    found[0, :4, 0] = torch.tensor([50.0, 50.0, side, side])
    found[0, 4:, 0] = torch.tensor(scores)
    return found


def test_detections_are_not_away_from_themselves() -> None:
    found = _detections(0.8, 0.1)
    assert halves.distances([(found, found)], 2) == pytest.approx((0, 0), abs=1e-6)


def test_classes_are_apart_by_the_divergence_and_boxes_by_squares_of_their_side() -> None:
    classes, boxes = halves.distances([(_detections(0.5, 0.1, side=25), _detections(0.8, 0.1))], 2)
    assert classes == pytest.approx(0.8 * math.log(0.8 / 0.5) + 0.2 * math.log(0.2 / 0.5), rel=1e-4)
    assert boxes == pytest.approx(2 * (5 / 20) ** 2, rel=1e-4)


def test_where_nothing_is_found_nothing_is_apart() -> None:
    assert halves.distances([(_detections(0.9), _detections(0.01))], 1) == (0, 0)


def test_the_cells_of_all_maps_are_all_cells() -> None:
    fine, middle, coarse = halves.cells_of(torch.zeros(1, 3, 64, 96))
    assert (fine, middle, coarse) == (slice(0, 96), slice(96, 120), slice(120, 126))


class _Says(nn.Module):
    """Returns one number for everything, as detectors return it."""

    def __init__(self, number: float) -> None:
        super().__init__()
        self.number = number

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, None]:
        cells = halves.cells_of(x)[-1].stop
        return torch.full((len(x), 6, cells), self.number), None


def test_two_networks_are_put_together_by_what_they_say_and_by_map() -> None:
    model, other, x = _Says(1), _Says(2), torch.zeros(1, 3, 32, 32)

    def said(join: halves.Join) -> torch.Tensor:
        end = halves.together(model, other, join)
        found: torch.Tensor = model(x)[0]
        end()
        return found

    assert said(halves.unpruned_boxes)[0, :, 0].tolist() == [2, 2, 2, 2, 1, 1]
    assert said(halves.unpruned_classes)[0, :, 0].tolist() == [1, 1, 1, 1, 2, 2]
    assert said(halves.pruned_only(1))[0, 0].tolist() == [2] * 16 + [1] * 4 + [2]
    assert model(x)[0].eq(1).all()


def test_cells_are_taken_by_what_the_unpruned_network_is_sure_of() -> None:
    own, other = torch.zeros(1, 6, 3), torch.ones(1, 6, 3)
    other[0, 4:] = torch.tensor([[0.1, 0.2, 0.02], [0.05, 0.3, 0.05]])
    halves.unpruned_where(0.05, 0.25)(torch.zeros(0), own, other)
    assert torch.equal(own[0, :, 0], other[0, :, 0])
    assert not own[0, :, 1:].any()


def test_a_constant_takes_another_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "BOX_WEIGHT", probe.BOX_WEIGHT)
    halves.adjust(["seqprune.yolo.task.probe.BOX_WEIGHT=24"])
    assert probe.BOX_WEIGHT == 24.0


@pytest.mark.parametrize(
    "setting", ["BOX_WEIGHT=1", "seqprune.yolo.task.probe.NOTHING=1", "seqprune.yolo.task.probe.BOX_WEIGHT=x"]
)
def test_what_is_no_constant_is_not_set(setting: str) -> None:
    with pytest.raises(InputError, match="sets nothing"):
        halves.adjust([setting])
