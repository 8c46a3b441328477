"""Pruners of the suite side by side: the same network, the same channels, each by its adapter, in turns.

Floor: the copy that each is given. Time to prune, and what the result takes to run.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks.timing import in_turns
from seqprune.graph import trace
from seqprune.graph.copying import copied
from seqprune.testing import PRUNERS, difference, subject
from seqprune.testing.outputs import run
from seqprune.testing.trial import drawn
from seqprune.yolo.task.profile import parameters

NETWORKS = [
    pytest.param("yolov8n", "torch-pruning-c2f", id="yolov8n"),
    pytest.param("torchvision:resnet18", "torch-pruning", id="resnet18"),
    pytest.param("torchvision:densenet121", "torch-pruning", id="densenet121", marks=pytest.mark.full),
]


@pytest.mark.parametrize(("name", "peer"), NETWORKS)
def test_pruning_by_name_beside_a_peer(benchmark: Any, name: str, peer: str, cpu: torch.device) -> None:
    """Tracing and pruning together, as a pruner is called; the results are compared by value."""
    pytest.importorskip("torch_pruning", reason="Torch-Pruning is not installed")
    model, inputs = _float(name)
    keep = drawn(trace(model, inputs), 0).keep

    def pruned(by: str) -> nn.Module:
        return PRUNERS[by].prune(copied(model), inputs, keep)

    benchmark.group = f"pruners, {name}"
    beside = {"floor": partial(copied, model), "peer": partial(pruned, peer)}
    turns = in_turns(benchmark, partial(pruned, "seqprune"), beside=beside, device=cpu, rounds=3)
    ours, theirs = turns.results["ours"].eval(), turns.results["peer"].eval()
    benchmark.extra_info["peer"] = peer
    benchmark.extra_info["kept_parameters"] = parameters(ours) / parameters(model)
    benchmark.extra_info["kept_parameters_peer"] = parameters(theirs) / parameters(model)
    benchmark.extra_info["relative_difference"] = difference(run(ours, inputs), run(theirs, inputs))


@pytest.mark.parametrize(("name", "peer"), NETWORKS)
def test_running_what_each_pruned(benchmark: Any, name: str, peer: str, cpu: torch.device) -> None:
    """Inference of the result beside the unpruned network and the peer's result."""
    pytest.importorskip("torch_pruning", reason="Torch-Pruning is not installed")
    model, inputs = _float(name)
    keep = drawn(trace(model, inputs), 0).keep
    ours, theirs = (PRUNERS[by].prune(copied(model), inputs, keep).eval() for by in ("seqprune", peer))
    benchmark.group = f"pruners, {name}"
    actions = {"unpruned": partial(_infer, model, inputs), "peer": partial(_infer, theirs, inputs)}
    in_turns(benchmark, partial(_infer, ours, inputs), beside=actions, device=cpu, rounds=9, warm_up=2)


def _float(name: str) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    model, inputs = subject(name)
    return model.float(), tuple(t.float() for t in inputs)


def _infer(model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> object:
    with torch.inference_mode():
        return model(*inputs)
