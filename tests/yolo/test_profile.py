"""Costs are counted on what really runs."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
from torch import nn

from seqprune.budget.target import Target, price_of
from seqprune.errors import InputError
from seqprune.yolo.files import networks
from seqprune.yolo.files.load import load
from seqprune.yolo.task.profile import gflops, latency_ms, parameters, profile
from seqprune.yolo.task.tracing import grey_image, trace_detector


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


def test_sizes_that_the_strides_do_not_divide_are_rounded_up_as_images_are(tiny: nn.Module) -> None:
    assert gflops(tiny, 41) == gflops(tiny, 64)
    assert latency_ms(tiny, 41, runs=1) > 0
    graph = trace_detector(tiny)
    target = Target("flops", 0.8)
    odd, even = (price_of(target, tiny, graph, grey_image(tiny, side)).whole for side in (41, 64))
    assert odd == even


def test_images_have_as_many_channels_as_the_network_takes() -> None:
    grey = networks.build("detect", {**load("yolov8n.yaml").model.yaml, "channels": 1}, 80)
    assert gflops(grey, 64) < gflops(load("yolov8n.yaml").model, 64)
