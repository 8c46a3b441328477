"""Stand-ins against the modules they stand for: the same class, the same numbers."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models.shufflenetv2 import InvertedResidual
from torchvision.ops.misc import FrozenBatchNorm2d
from ultralytics.nn.modules.block import PSA, A2C2f, AAttn, Attention, CBLinear, MaxSigmoidAttnBlock

from seqprune import PrunePlan, compact, mask, trace, verify
from seqprune.graph.standins import STANDINS, standin_for
from seqprune.graph.standins.operators import watched
from seqprune.testing.networks import random_plan, randomise


def image(channels: int) -> torch.Tensor:
    return torch.rand(3, channels, 8, 6)


CASES: dict[str, tuple[nn.Module, tuple[torch.Tensor, ...]]] = {
    "Attention": (Attention(64, 2), (image(64),)),
    "AAttn": (AAttn(64, 2), (image(64),)),
    "AAttn, areas": (AAttn(64, 2, area=4), (image(64),)),
    "A2C2f": (A2C2f(64, 64, residual=True), (image(64),)),
    "A2C2f, two branches": (A2C2f(64, 64, n=2), (image(64),)),
    "A2C2f, plain": (A2C2f(64, 64, a2=False), (image(64),)),
    "MaxSigmoidAttnBlock": (MaxSigmoidAttnBlock(32, 32, nh=2, ec=32, gc=16), (image(32), torch.rand(3, 5, 16))),
    "MaxSigmoidAttnBlock, embedded": (
        MaxSigmoidAttnBlock(24, 32, nh=2, ec=32, gc=16, scale=True),
        (image(24), torch.rand(3, 5, 16)),
    ),
    "CBLinear": (CBLinear(16, [8, 24, 8]), (image(16),)),
    "InvertedResidual": (InvertedResidual(16, 16, 1), (image(16),)),
    "InvertedResidual, strided": (InvertedResidual(16, 24, 2), (image(16),)),
    "FrozenBatchNorm2d": (FrozenBatchNorm2d(16), (image(16),)),
}


@pytest.mark.parametrize("name", CASES)
def test_a_standin_computes_what_its_module_computes(name: str) -> None:
    module, inputs = CASES[name]
    torch.manual_seed(0)
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point():
            tensor.data.uniform_(0.1, 0.6)
    module = module.double().eval()
    inputs = tuple(x.double() for x in inputs)
    standin: Any = standin_for(module)
    with torch.no_grad():
        torch.testing.assert_close(standin(module, *inputs), module(*inputs), rtol=1e-10, atol=1e-12)


def test_every_standin_is_for_a_class_that_is_there_and_is_tested() -> None:
    tested = {f"{type(m).__module__}.{type(m).__qualname__}" for m, _ in CASES.values()}
    heads = {name for name in STANDINS if ".head.YOLOE" in name}  # run their own code, see test_contract
    assert tested == set(STANDINS) - heads
    for name in tested:
        module, _, kind = name.rpartition(".")
        assert hasattr(import_module(module), kind)


def test_an_operator_outside_a_trace_is_a_plain_function() -> None:
    assert watched(lambda x: x + 1)(torch.ones(1)).item() == 2
    assert watched(lambda x, by, more=0: x * by + more)(torch.ones(1), 3, more=2).item() == 5


class Inside(nn.Module):
    """A module between two convolutions."""

    def __init__(self, module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        super().__init__()
        self.first, self.inner, self.last = nn.Conv2d(3, inputs[0].shape[1], 1), module, nn.LazyConv2d(2, 1)
        self.more = inputs[1:]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.inner(self.first(x), *(each.to(x) for each in self.more))
        return self.last(torch.cat(y, 1) if isinstance(y, tuple) else y)


@pytest.mark.parametrize("name", CASES)
def test_what_a_standin_says_of_its_channels_holds_of_its_module(name: str) -> None:
    x = image(3).double()
    model = Inside(*CASES[name]).double().eval()
    model(x)
    randomise(model, 0)
    graph = trace(model.double().eval(), x)
    for seed in range(3):
        plan = random_plan(graph, seed)
        assert plan.layers
        verify(mask(model, plan, graph), compact(model, plan, graph), x)


def test_a_width_of_a_class_whose_code_was_read_is_no_count() -> None:
    """What is stated of it holds: the number itself stays plain in a trace."""
    model = Inside(PSA(128, 128), (image(128),)).double().eval()  # of 64 Ultralytics 8.3 makes no head
    model(image(3).double())
    randomise(model, 0)
    graph = trace(model.double().eval(), image(3).double())
    assert graph.by_name["inner.cv1.conv"].free.all()
    assert {width.attribute for width in graph.widths} == {"head_dim"}
    assert not [name for path, name in graph.unread if path == "inner"]


# Ultralytics 8.3 has no width of all heads.
AREA = {"num_heads": [2]} | ({"all_head_dim": [64]} if hasattr(AAttn(64, 2), "all_head_dim") else {})


@pytest.mark.parametrize(
    ("name", "layer", "decided", "widths"),
    [
        ("Attention", "inner.qkv.conv", 64, {"head_dim": [32]}),
        ("AAttn", "inner.qkv.conv", 2, AREA),
        ("AAttn, areas", "inner.qkv.conv", 2, AREA),
        ("CBLinear", "inner.conv", 40, {"c2s": [8, 24, 8]}),
        ("MaxSigmoidAttnBlock", "inner.proj_conv.conv", 32, {}),
    ],
)
def test_what_a_layer_may_lose_and_what_its_module_counts(
    name: str, layer: str, decided: int, widths: dict[str, list[int]]
) -> None:
    """Queries and keys stay where heads do; where a head goes it goes whole."""
    model = Inside(*CASES[name]).double().eval()
    model(image(3).double())
    graph = trace(model, image(3).double())
    found = graph.by_name[layer]
    assert len(set(found.groups[found.free].tolist())) == decided
    assert {w.attribute: [len(section) for section in w.sections] for w in graph.widths} == widths


def test_frozen_batch_normalisation_narrows_with_its_convolution() -> None:
    """Pretrained detectors of torchvision have it everywhere: none of their layers could be pruned."""
    norm = FrozenBatchNorm2d(6)
    for buffer in norm.buffers():
        buffer.uniform_(0.5, 1.5)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), norm, nn.ReLU(), nn.Conv2d(6, 2, 1)).double().eval()
    x = image(3).double()
    graph = trace(model, x)
    plan = PrunePlan.from_keep(graph, {"0": [0, 3, 4]})
    small = compact(model, plan, graph)
    verify(mask(model, plan, graph), small, x)
    assert len(small[1].running_var) == 3
