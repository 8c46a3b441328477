"""Pruning is exact on real architectures, with random weights: YOLOv8 in all sizes, YOLOv5u and YOLO11."""

from __future__ import annotations

import random
import time
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from seqprune import PrunePlan, compact, count_active_channels, mask, verify
from seqprune.engine.run import layers_for
from seqprune.errors import InputError
from seqprune.graph import ChannelGraph
from seqprune.testing.networks import random_plan, randomise
from seqprune.yolo.files.load import load
from seqprune.yolo.task.tracing import trace_detector

SMALL = ("yolov8n", "yolov8n-p2", "yolov8n-p6", "yolov8n-ghost", "yolov5n", "yolov5n-p6", "yolo11n")
LARGE = (
    "yolov8s",
    "yolov8m",
    "yolo11m",
    *(pytest.param(name, marks=pytest.mark.long) for name in ("yolov8l", "yolov8x")),
)


@cache
def built(name: str, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, ChannelGraph]:
    model = load(f"{name}.yaml").model.to(dtype)
    randomise(model, 0)
    return model, trace_detector(model)


def image(model: nn.Module, seed: int = 0) -> torch.Tensor:
    size = 2 * int(max(model.stride))  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(2, 3, size, size + size // 2, generator=generator, dtype=next(model.parameters()).dtype)


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
@pytest.mark.parametrize("name", SMALL)
def test_compact_is_exact(name: str, share: float) -> None:
    model, graph = built(name)
    plan = random_plan(graph, 1, share)
    small = compact(model, plan, graph)
    assert verify(mask(model, plan, graph), small, image(model)).max_rel <= 1e-10
    small.train()(image(model))


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_compact_is_exact_in_float32(name: str) -> None:
    model, graph = built(name, torch.float32)
    plan = random_plan(graph, 1, 0.5)
    assert verify(mask(model, plan, graph), compact(model, plan, graph), image(model)).max_rel <= 1e-4


@settings(max_examples=5)
@given(st.integers(0, 2**16), st.integers(1, 12), st.randoms(use_true_random=False))
def test_random_layers_in_random_block_order_never_disagree(seed: int, count: int, shuffle: random.Random) -> None:
    """The original crashed on its second layer."""
    model, graph = built("yolov8n")
    whole = random_plan(graph, seed, 0.5)
    names = shuffle.sample([layer.name for layer in whole.layers], count)
    # Only whole decisions are legal: the halves of a C2f and what ends in them.
    together = {m for name in names for bundle in graph.bundles(name) for m in bundle.columns}
    keep = {name: whole.keep[name] for name in sorted(together & whole.keep.keys(), key=lambda _: shuffle.random())}
    plan = PrunePlan.from_keep(graph, keep)
    assert [layer.name for layer in plan.layers] == sorted(plan.keep, key=graph.order.__getitem__)
    masked, small = mask(model, plan, graph), compact(model, plan, graph)
    verify(masked, small, image(model, seed))
    for layer in plan.layers:
        assert count_active_channels(masked.get_submodule(layer.name)) == len(layer.keep)
        assert small.get_submodule(layer.name).out_channels == len(layer.keep)


def test_widths_in_attributes_follow_the_weights() -> None:
    """Exporters take a C2f apart with ``split((self.c, self.c))``."""
    model, graph = built("yolov8n")
    small = compact(model, random_plan(graph, 3, 0.5), graph)
    blocks = [m for m in small.modules() if type(m).__name__ == "C2f"]
    assert blocks
    for block in blocks:
        x = torch.rand(1, block.cv1.conv.in_channels, 8, 8, dtype=torch.float64)
        torch.testing.assert_close(block.forward_split(x), block.forward(x))


def test_every_layer_of_the_neck_can_be_pruned() -> None:
    _, graph = built("yolov8n")
    pinned = {e.name for e in graph.all_layers if not e.free.all()}
    assert pinned == {*(f"model.22.cv{b}.{i}.2" for i in range(3) for b in (2, 3)), "model.22.dfl.conv"}


def test_blocks_without_layers_are_passed_over() -> None:
    """An upsampling; or, in the second block of RT-DETR, a depthwise convolution: by default nothing was pruned."""
    _, graph = built("yolov8n")
    assert layers_for(graph, 2, (9, 10, 12)) == layers_for(graph, 2, (9, 12))
    with pytest.raises(InputError, match="no prunable convolution in block 10"):
        layers_for(graph, 1, (10,))


def test_the_largest_traces_in_seconds() -> None:
    model = load("yolov8x.yaml").model
    start = time.thread_time()
    trace_detector(model)
    assert time.thread_time() - start < 10
