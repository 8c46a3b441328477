"""Costs are counted on what really runs."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
from torch import nn

from seqprune.errors import InputError
from seqprune.yolo.load import load
from seqprune.yolo.profile import gflops, latency_ms, parameters, profile


def test_the_official_architecture_has_the_published_cost() -> None:
    model = load("yolov8n.yaml").model
    assert parameters(model) == 3_157_200
    assert round(gflops(model, 640), 1) == 8.7


def test_operations_are_two_per_multiply_accumulate() -> None:
    assert gflops(nn.Conv2d(3, 5, 3, padding=1, bias=False), 8) == pytest.approx(2 * 3 * 5 * 9 * 64 / 1e9)


def test_a_pruned_model_costs_less_by_what_was_removed(tiny: nn.Module, narrow) -> None:
    small = narrow(tiny)
    unit = tiny.get_submodule("model.4.m.0")
    width = unit.cv1.conv.in_channels
    assert parameters(tiny) - parameters(small) == 3 * (width * 9 + 2 + unit.cv2.conv.out_channels * 9)
    assert gflops(tiny, 64) - gflops(small, 64) == pytest.approx(2 * 3 * width * 9 * 2 * 16 / 1e9 * 4, rel=1e-6)


def test_profiling_leaves_the_model_alone(tiny: nn.Module) -> None:
    before = deepcopy(tiny.state_dict())
    tiny.train()
    found = profile(tiny, 64, runs=2)
    assert found.params == parameters(tiny)
    assert found.latency_ms > 0
    assert tiny.training
    assert all((tensor == before[name]).all() for name, tensor in tiny.state_dict().items())


def test_impossible_numbers_are_refused(tiny: nn.Module) -> None:
    with pytest.raises(InputError, match="runs=0"):
        latency_ms(tiny, 64, runs=0)
    with pytest.raises(InputError, match="imgsz=0"):
        gflops(tiny, 0)


@pytest.mark.real
def test_real_weights_have_the_published_cost(real: Path) -> None:
    model = load(real / "weights" / "yolov8n.pt").model
    assert (parameters(model), round(gflops(model), 1)) == (3_157_200, 8.7)
