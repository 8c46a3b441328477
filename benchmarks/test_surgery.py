"""Tracing a network, planning over its graph, masking and compacting it.

Floors: for the trace the two passes it watches, run bare; for mask and compact the copy they return. A plan has none.
The predecessor neither traced nor made anything smaller, so it has no row here.
"""

from __future__ import annotations

from copy import deepcopy
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks.networks import ROUND_TO, detector, example_inputs, graph_of, kept_channels, random_plan
from benchmarks.timing import in_turns
from seqprune.graph import trace
from seqprune.surgery import compact, mask, verify
from seqprune.yolo.task.profile import parameters

KEEP = 0.5
scales = pytest.mark.parametrize(
    "scale",
    [pytest.param("n", id="yolov8n")] + [pytest.param(s, id=f"yolov8{s}", marks=pytest.mark.full) for s in "smlx"],
)


@scales
def test_tracing_a_network(benchmark: Any, scale: str, cpu: torch.device) -> None:
    model = detector(scale)

    def bare() -> None:
        copy = deepcopy(model).eval()
        with torch.no_grad():
            copy(example_inputs())
            copy.train()(example_inputs().repeat(2, 1, 1, 1))

    benchmark.group = f"surgery, yolov8{scale}"
    turns = in_turns(benchmark, partial(trace, model, example_inputs()), beside={"floor": bare}, device=cpu, rounds=5)
    graph = turns.results["ours"]
    benchmark.extra_info["layers"] = len(graph.all_layers)
    benchmark.extra_info["prunable_layers"] = len(graph.layers)
    benchmark.extra_info["channel_groups"] = graph.group_count
    benchmark.extra_info["barriers"] = len(graph.barriers)
    assert graph.layers


@scales
def test_planning_half_of_the_channels(benchmark: Any, scale: str, cpu: torch.device) -> None:
    graph = graph_of(scale)
    benchmark.group = f"surgery, yolov8{scale}"
    turns = in_turns(benchmark, partial(random_plan, graph, KEEP), beside={}, device=cpu, rounds=5)
    plan = turns.results["ours"]
    benchmark.extra_info["kept_channels"] = kept_channels(graph, plan)
    benchmark.extra_info["channels"] = sum(layer.channels for layer in graph.all_layers)
    benchmark.extra_info["round_to"] = ROUND_TO
    assert plan.layers


@scales
def test_masking_half_of_the_channels(benchmark: Any, scale: str, cpu: torch.device) -> None:
    model, graph = detector(scale), graph_of(scale)
    plan = random_plan(graph, KEEP)
    benchmark.group = f"surgery, yolov8{scale}"
    turns = in_turns(
        benchmark,
        partial(mask, model, plan, graph),
        beside={"floor": partial(deepcopy, model)},
        device=cpu,
        rounds=7,
    )
    _agree(benchmark, turns.results["ours"], compact(model, plan, graph))


@scales
def test_compacting_half_of_the_channels(benchmark: Any, scale: str, cpu: torch.device) -> None:
    model, graph = detector(scale), graph_of(scale)
    plan = random_plan(graph, KEEP)
    benchmark.group = f"surgery, yolov8{scale}"
    turns = in_turns(
        benchmark,
        partial(compact, model, plan, graph),
        beside={"floor": partial(deepcopy, model)},
        device=cpu,
        rounds=7,
    )
    small = turns.results["ours"]
    benchmark.extra_info["kept_parameters"] = parameters(small) / parameters(model)
    _agree(benchmark, mask(model, plan, graph), small)


def _agree(benchmark: Any, masked: nn.Module, small: nn.Module) -> None:
    """Raises where both compute different things."""
    difference = verify(masked, small, torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    benchmark.extra_info["relative_difference"] = difference.max_rel
