"""Blocks left out whole: exact where they add nothing, in any order, with plans that come back from JSON."""

from __future__ import annotations

import copy
import itertools
import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from seqprune import PrunePlan, compact, mask, trace
from seqprune.errors import PlanError
from seqprune.graph import leaving
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


def test_what_is_wired_by_number_or_given_more_than_a_tensor_stays() -> None:
    class Calls(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.two, self.named, self.one = (nn.ModuleList([Weighed(4, 4), Weighed(4, 4)]) for _ in range(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for number in range(2):
                x = self.two[number](x, 2)
            for block in self.named:
                x = block(x, by=1)
            for block in self.one:
                x = block(x)
            return x

    class Weighed(Residual):
        def forward(self, x: torch.Tensor, by: int = 1) -> torch.Tensor:
            return by * super().forward(x)

    wired = nn.Sequential(Residual(4, 4), Residual(4, 4))
    wired[0].f = -1
    model = nn.Sequential(Unit(3, 4), Calls(), wired).double().eval()
    assert removable(model, (INPUT,)) == ("1", "2", "1.one.0", "1.one.1", "2.1")
    with pytest.raises(PlanError, match=r"2\.0 is no block that can be left out here"):
        left_out(model, ["2.0"])


def test_a_layer_beside_a_parameter_of_many_dimensions_is_no_block() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.gamma = nn.Conv2d(4, 4, 1), nn.Parameter(torch.ones(1, 4, 1, 1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.gamma * self.layer(x)

    assert removable(nn.Sequential(Scaled(), Scaled()), (torch.rand(1, 4, 3, 3),)) == ()


def test_a_block_that_returns_more_than_a_tensor_stays() -> None:
    class Telling(Residual):
        def forward(self, x: torch.Tensor) -> Any:
            return super().forward(x), "told"

    class Told(Residual):
        def forward(self, x: Any) -> torch.Tensor:
            return super().forward(x[0])

    assert removable(nn.Sequential(Telling(3, 3), Told(3, 3)).double(), (INPUT,)) == ()


def test_blocks_of_linear_layers_may_be_left_out() -> None:
    blocks = (nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4)) for _ in range(2))
    assert removable(nn.Sequential(*blocks, nn.Linear(4, 2)), (torch.rand(2, 4),)) == ("0", "1")


@settings(max_examples=6)
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


class Together(nn.Module):
    """As a C2f: one convolution reads the outputs of all elements of a list side by side."""

    def __init__(self, inputs: int, outputs: int, *blocks: nn.Module) -> None:
        super().__init__()
        self.cv1, self.m = Unit(inputs, 8, kernel=1), nn.ModuleList(blocks)
        self.cv2 = Unit(4 * (2 + len(blocks)), outputs, kernel=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = list(self.cv1(x).chunk(2, 1))
        for block in self.m:
            parts.append(block(parts[-1]))
        y: torch.Tensor = self.cv2(torch.cat(parts, 1))
        return y


SIDE_BY_SIDE = ("1.1", "2.m.0", "2.m.1", "2.m.2", "3.m.0", "3.m.1")


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """A list of residual blocks, and one of others, behind a sequence."""
    kind = f"{Together.__module__}.{Together.__qualname__}"
    monkeypatch.setitem(leaving.READ_TOGETHER, kind, ("m", "cv2.conv", 2))
    plain = (nn.Sequential(Unit(4, 4), Unit(4, 4)) for _ in range(2))
    stage = nn.Sequential(Residual(6, 6), Residual(6, 6))
    residual = Together(6, 8, *(Residual(4, 4) for _ in range(3)))
    model = nn.Sequential(Unit(3, 6), stage, residual, Together(8, 6, *plain))
    randomise(model, 0)
    return model.double().eval()


def without(model: nn.Module, gone: tuple[str, ...]) -> Any:
    """The network itself, branches beside a shortcut at zero, and of other blocks what reads them."""
    reference: Any = copy.deepcopy(model)
    for path in gone:
        if path[0] == "3":
            section = slice(4 * (2 + int(path[-1])), 4 * (3 + int(path[-1])))
            reference[3].cv2.conv.weight.data[:, section] = 0
            setattr(reference[3].m, path[-1], nn.Identity())
        else:
            norm = reference.get_submodule(path).two.bn
            nn.init.zeros_(norm.weight)
            nn.init.zeros_(norm.bias)
    return reference


@pytest.mark.parametrize("gone", [tuple(c) for n in (1, 2, 3) for c in itertools.combinations(SIDE_BY_SIDE, n)][::3])
def test_a_block_that_others_are_read_beside_is_left_out_exactly(together: nn.Module, gone: tuple[str, ...]) -> None:
    assert set(SIDE_BY_SIDE) <= set(removable(together, (INPUT,)))
    graph = trace(left_out(together, gone), INPUT)
    for seed in range(2):
        plan = replace(random_plan(graph, seed, 0.3), blocks=gone[:: 1 - 2 * seed])
        small: Any = compact(together, plan, graph)
        with torch.no_grad():
            assert torch.allclose(mask(together, plan, graph)(INPUT), small(INPUT), atol=1e-10)
        assert len(left_out_of(together, small)) == len(gone)
        for path in SIDE_BY_SIDE:
            before = sum(other[:-1] == path[:-1] and other < path for other in gone) if "m" in path else 0
            there = f"{path[:-1]}{int(path[-1]) - before}.0.conv"
            assert placed(small, gone, f"{path}.0.conv") == (None if path in gone else there)
    whole: Any = compact(together, replace(PrunePlan((), graph.inputs), blocks=gone))
    assert [len(whole[at].m) + sum(path[:3] == f"{at}.m" for path in gone) for at in (2, 3)] == [3, 2]
    assert all(whole[at].cv2.conv.in_channels == whole[at].cv2.conv.weight.shape[1] for at in (2, 3))
    with torch.no_grad():
        assert torch.allclose(whole(INPUT), without(together, gone)(INPUT), atol=1e-10)


def test_a_list_that_is_gone_with_what_reads_it_is_another_network(together: Any) -> None:
    assert left_out_of(together, together[:2]) == ()


def test_another_list_beside_such_a_one_is_no_shorter_one(together: Any) -> None:
    other = copy.deepcopy(together)
    together[2].beside, other[2].beside = nn.ModuleList([Residual(4, 4)]), nn.ModuleList()
    assert left_out_of(together, other) == ()


@pytest.mark.usefixtures("together")
def test_a_block_that_is_alone_in_such_a_list_may_leave_too() -> None:
    model = nn.Sequential(Unit(3, 6), Together(6, 8, Residual(4, 4))).double().eval()
    assert "1.m.0" in removable(model, (INPUT,))

    class Otherwise(Together):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(x)

    model[1] = Otherwise(6, 8, Residual(4, 4)).double()
    assert removable(model, (INPUT,)) == ()


def test_a_sequence_that_is_shorter_is_another_network() -> None:
    whole = nn.Sequential(*(nn.Sequential(Residual(4, 4), Residual(4, 4)) for _ in range(2)))
    assert left_out_of(whole, nn.Sequential(whole[0])) == ()
    assert left_out_of(whole, nn.Sequential(whole[0], nn.Sequential(nn.Identity(), whole[1][1]))) == ("1.0",)


class Picky(Residual):
    """Takes maps of more than ten rows alone."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[2] <= 10:
            raise LookupError
        return super().forward(x)


@pytest.mark.usefixtures("together")
def test_a_block_that_cannot_be_asked_is_taken_for_a_residual_one() -> None:
    """What reads it beside others stays as it is: the block's branch may have been at zero."""
    model: Any = nn.Sequential(Unit(3, 6), Together(6, 8, Picky(4, 4), nn.Sequential(Unit(4, 4), Unit(4, 4))))
    for block, changes in (("1.m.0", False), ("1.m.1", True)):
        other: Any = left_out(model, [block])
        assert torch.equal(other[1].cv2.conv.weight, model[1].cv2.conv.weight) is not changes


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
    assert placed(nn.Sequential(), ("3.chain.0",), "3.chain.1.one") == "3.chain.1.one"


def test_blocks_behind_one_that_holds_others_are_found_too() -> None:
    gone = ("2", "3.chain.0")
    assert left_out_of(network(), left_out(network(), gone)) == gone


def test_a_block_that_was_an_identity_all_along_is_not_left_out() -> None:
    class Passing(nn.Identity):
        """Keeps its layers for later."""

        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = Unit(3, 3), Unit(3, 3)

    model = nn.Sequential(Passing(), Unit(3, 3))
    assert left_out_of(model, copy.deepcopy(model)) == ()
