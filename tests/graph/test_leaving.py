"""Blocks left out whole: exact where they add nothing, in any order, with plans that come back from JSON."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from seqprune import PrunePlan, compact, mask, trace
from seqprune.errors import PlanError
from seqprune.graph.leaving import left_out, left_out_of, placed, removable
from seqprune.testing.networks import SplitBlock, Unit, random_plan, randomise

INPUT = torch.rand(2, 3, 11, 13, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Residual(nn.Module):
    """Two convolutions beside a shortcut, and an activation behind both, as in a ResNet."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.one, self.two = Unit(inputs, outputs), Unit(outputs, outputs, act=4)
        self.beside = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.two(self.one(x)) + self.beside(x))


class Listed(nn.Module):
    """A list whose elements run one after the other, and one whose elements do not."""

    def __init__(self) -> None:
        super().__init__()
        self.chain = nn.ModuleList(Residual(8, 8) for _ in range(2))
        self.side = nn.ModuleList(Residual(8, 8) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.chain:
            x = block(x)
        return torch.cat([block(x) for block in self.side], 1)


def network() -> nn.Module:
    stages = [nn.Sequential(Residual(6, 8), Residual(8, 8), Residual(8, 8)), nn.Sequential(Residual(8, 8), Unit(8, 8))]
    model = nn.Sequential(Unit(3, 6), *stages, Listed(), SplitBlock(16, 5, 4, 1, shortcut=True))
    randomise(model, 0)
    return model.double().eval()


BLOCKS = ("2", "1.1", "1.2", "2.0", "3.chain.0", "3.chain.1")


def test_what_keeps_its_shape_and_is_read_in_turn_may_be_left_out() -> None:
    """Not what is read beside others, nor a branch whose shortcut lies outside it, nor a layer alone."""
    assert removable(network(), (INPUT,)) == BLOCKS


@settings(max_examples=6, deadline=None)
@given(st.lists(st.sampled_from([b for b in BLOCKS if b != "2"]), unique=True), st.integers(0, 99))
def test_a_block_that_adds_nothing_is_left_out_exactly(blocks: list[str], seed: int) -> None:
    """Random blocks, in any order, with random channels: compact is the masked network of zeroed branches."""
    model = network()
    for path in blocks:
        norm = model.get_submodule(f"{path}.two.bn")
        nn.init.zeros_(norm.weight)  # type: ignore[arg-type]
        nn.init.zeros_(norm.bias)  # type: ignore[arg-type]
    graph = trace(left_out(model, blocks), INPUT)
    plan = replace(random_plan(graph, seed, 0.3), blocks=tuple(blocks))
    small = compact(model, plan, graph)
    with torch.no_grad():
        assert torch.allclose(left_out(model, blocks)(INPUT), model(INPUT), atol=1e-12)
        assert torch.allclose(mask(model, plan, graph)(INPUT), small(INPUT), atol=1e-10)
    left = {name.rpartition(".")[0] for name in small.state_dict()}
    assert not any(f"{name}.".startswith(f"{block}.") for name in left for block in blocks)
    assert PrunePlan.from_json(plan.to_json()) == plan
    assert set(left_out_of(model, small)) == set(blocks)


def test_plans_without_blocks_are_written_as_before() -> None:
    graph = trace(network(), INPUT)
    assert json.loads(PrunePlan((), graph.inputs).to_json())["format"] == 1
    assert json.loads(PrunePlan((), graph.inputs, imgsz=96).to_json())["format"] == 2
    data = json.loads(PrunePlan((), graph.inputs, blocks=("1.1",)).to_json())
    assert (data["format"], data["blocks"]) == (3, ["1.1"])
    with pytest.raises(PlanError, match="is no name"):
        PrunePlan.from_json(json.dumps(data | {"blocks": [3]}))
    with pytest.raises(PlanError, match="leave out other blocks"):
        _ = PrunePlan((), graph.inputs, blocks=("1.1",)) & PrunePlan((), graph.inputs)


@pytest.mark.parametrize("block", ["1.7", "0", "2.1", "3.chain"])
def test_what_is_no_block_is_refused(block: str) -> None:
    plan = replace(PrunePlan((), trace(network(), INPUT).inputs), blocks=(block,))
    with pytest.raises(PlanError, match=f"{block} is no block that can be left out here"):
        compact(network(), plan)


def test_names_stay_where_an_identity_takes_the_place() -> None:
    model, blocks = network(), ("1.1", "3.chain.0")
    small = compact(model, replace(PrunePlan((), trace(model, INPUT).inputs), blocks=blocks))
    assert placed(small, blocks, "1.2.one.conv") == "1.2.one.conv"
    assert placed(small, blocks, "1.1.one.conv") is None
    assert isinstance(small.get_submodule("3.chain.0"), nn.Identity)
