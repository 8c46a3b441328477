"""Torch-Pruning as a peer: the rewriting changes nothing, the target is met, the model is left alone."""

from __future__ import annotations

import sys
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import nn

from seqprune.budget.target import Target
from seqprune.engine.task import Task
from seqprune.errors import InputError, ModelError
from seqprune.measure.peers import PEERS, peer
from seqprune.observe.batch import Noise
from seqprune.testing.networks import randomise
from seqprune.yolo import DetectionImages, gflops, parameters
from seqprune.yolo.task.splitting import SplitC2f, split_c2f
from seqprune.yolo.task.task import YoloTask
from seqprune.yolo.task.tracing import trace_detector


def pruned(importance: str, model: nn.Module, task: Task | None = None, target: str = "params=0.8", seed: int = 0):
    task = task or YoloTask(Noise(64), {0: "green", 1: "red"}, 64)
    return peer(importance, model, trace_detector(model), Target.parse(target), task, seed)


def test_a_c2f_of_two_convolutions_computes_the_same(tiny: nn.Module) -> None:
    randomise(tiny, 0)
    model, x = tiny.double(), torch.rand(2, 3, 64, 96, dtype=torch.float64)
    split = split_c2f(model)
    assert sum(isinstance(module, SplitC2f) for module in split.modules()) == 8
    assert parameters(split) == parameters(model)
    with torch.no_grad():
        torch.testing.assert_close(split(x)[0], model(x)[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("importance", PEERS)
def test_every_peer_meets_the_target_and_leaves_the_model_alone(
    importance: str, tiny: nn.Module, data_yaml: Path
) -> None:
    pytest.importorskip("torch_pruning")
    images, weights = DetectionImages(data_yaml, imgsz=64, batch=2, images=2), deepcopy(tiny.state_dict())
    small = pruned(importance, tiny, YoloTask(images, images.names, 64))
    # Channels of an eighth of YOLOv8n's width are coarse steps.
    assert parameters(small) / parameters(tiny) == pytest.approx(0.8, abs=0.05)
    assert small(torch.zeros(1, 3, 64, 96))[0].shape == tiny(torch.zeros(1, 3, 64, 96))[0].shape
    assert all(torch.equal(tensor, weights[name]) for name, tensor in tiny.state_dict().items())


def test_a_peer_meets_operations_too(tiny: nn.Module) -> None:
    pytest.importorskip("torch_pruning")
    small = pruned("magnitude", tiny, target="flops=0.8")
    assert gflops(small, 64) / gflops(tiny, 64) == pytest.approx(0.8, abs=0.05)
    assert parameters(small) / parameters(tiny) != pytest.approx(0.8, abs=0.01)


def test_random_takes_its_seed(tiny: nn.Module) -> None:
    pytest.importorskip("torch_pruning")
    first, again, other = (pruned("random", tiny, seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(first[name].shape != other[name].shape or not torch.equal(first[name], other[name]) for name in first)


def test_what_cannot_be_is_said(tiny: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    class Attention(nn.Module):
        pass

    pytest.importorskip("torch_pruning")
    model = deepcopy(tiny)
    model.extra = Attention()
    with pytest.raises(ModelError, match="does not follow Attention"):
        pruned("magnitude", model)
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    with pytest.raises(InputError, match=r"pip install 'seqprune\[compare\]'"):
        pruned("magnitude", tiny)
