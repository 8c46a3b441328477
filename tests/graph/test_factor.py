"""A convolution made of two: the same at full rank, the nearest below it, and an ordinary network afterwards."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from seqprune import PrunePlan, compact, mask, trace, verify
from seqprune.errors import PlanError
from seqprune.graph import sole
from seqprune.graph.factor import (
    Factor,
    First,
    _replace,
    aligned,
    approximation,
    as_matrix,
    factorable,
    factored,
    factors_of,
    full_rank,
    shaped,
)
from seqprune.testing.networks import SplitBlock, Unit, randomise

INPUT = torch.rand(2, 3, 11, 13, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
WAYS: tuple[First, ...] = ("column", "row")


@pytest.fixture(autouse=True)
def units(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Units give what they read to their convolution alone, as Ultralytics' do."""
    monkeypatch.setattr(sole, "ONE_CONVOLUTION", {f"{Unit.__module__}.Unit": "conv"})
    return


def network() -> nn.Module:
    model = nn.Sequential(Unit(3, 8, act=1), Unit(8, 6, act=2, bias=True), SplitBlock(6, 5, 4, 2, shortcut=True))
    model[1].conv.stride = (2, 2)
    randomise(model, 0)
    return model.double().eval()


def whole(model: nn.Module, first: First) -> list[Factor]:
    return [Factor(b, first, full_rank(model.get_submodule(c), first)) for b, c in factorable(model).items()]


@pytest.mark.parametrize("first", WAYS)
def test_at_full_rank_every_pair_is_its_layer(first: First) -> None:
    model = network()
    assert len(whole(model, first)) == 6  # 1x1 convolutions have nothing to split
    both = factored(model, whole(model, first))
    assert verify(model, both, INPUT, tolerance=1e-10).max_rel < 1e-12
    same = aligned(model, whole(model, first))
    assert verify(model, same, INPUT, tolerance=0.0).max_abs == 0
    assert [name for name, _ in same.named_modules()] == [name for name, _ in both.named_modules()]


@pytest.mark.parametrize("first", WAYS)
@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation"), [((3, 5), (2, 3), (1, 0), (2, 1)), (3, 1, 2, 1)])
def test_whatever_the_geometry(first: First, kernel: int, stride: int, padding: int, dilation: int) -> None:
    unit = Unit(3, 4)
    unit.conv = nn.Conv2d(3, 4, kernel, stride, padding, dilation)
    model = nn.Sequential(unit).double().eval()
    assert verify(model, factored(model, whole(model, first)), INPUT, tolerance=1e-12)


def test_a_block_that_is_the_whole_network_has_no_place_for_a_pair() -> None:
    unit = Unit(3, 4)
    unit.conv = nn.Conv2d(3, 4, 3)
    assert factorable(nn.Sequential(unit)) == {"0": "0.conv"}
    assert factorable(unit) == {}


@pytest.mark.parametrize("frozen", [True, False])
def test_a_pair_is_trained_as_its_layer_was(frozen: bool) -> None:
    model = network().train(not frozen)
    model[0].conv.weight.requires_grad_(not frozen)
    pair = factored(model, [Factor("0", "row", 3)])[0]
    assert factored(model, [Factor("0", "row", 1)])[0][0].out_channels == 1
    given = torch.rand(3, 3, 1, 3).double(), torch.rand(8, 3, 3, 1).double()
    held = factored(model, [Factor("0", "row", 3)], {"0": given})[0]
    assert all(torch.equal(conv.weight, weight) for conv, weight in zip((held[0], held[1].conv), given, strict=True))
    assert factors_of(model, aligned(model, [Factor("0", "row", 3)])) == ()
    for conv in (pair[0], pair[1].conv):
        assert (conv.training, conv.weight.requires_grad) == (not frozen, not frozen)


@pytest.mark.parametrize("first", WAYS)
def test_below_it_the_product_is_the_nearest_there_is(first: First) -> None:
    weight = torch.randn(5, 4, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    values = torch.linalg.svdvals(as_matrix(weight, first))
    for rank in (1, 4, 9):
        one, two = approximation(weight, first, rank)
        ones, twos = (one[..., 0], two[:, :, 0]) if first == "column" else (one[:, :, 0], two[..., 0])
        near = torch.einsum("rih,orx->oihx" if first == "column" else "rix,orh->oihx", ones, twos)
        assert float((near - weight).square().sum()) == pytest.approx(float(values[rank:].square().sum()))


def test_a_network_that_has_its_factors_is_itself() -> None:
    model, one, two = network(), Factor("0", "column", 7), Factor("2.m.0.1", "row", 9)
    pair = shaped(model, [one])
    assert factors_of(model, pair) == (one,)
    assert shaped(pair, [one]) is pair
    assert factors_of(model, shaped(pair, [one, two])) == (one, two)
    assert factors_of(model, pair) == (one,)


@pytest.mark.parametrize(
    "instead",
    [
        [nn.Conv2d(3, 8, 3)],
        [nn.Conv2d(3, 3, (3, 1)), Unit(3, 8), nn.ReLU()],
        [nn.Identity(), Unit(3, 8)],
        [nn.Conv2d(3, 3, (3, 1)), nn.Conv2d(3, 8, 3)],
    ],
)
def test_what_is_no_pair_is_no_factor(instead: list[nn.Module]) -> None:
    other = network()
    other[0] = nn.Sequential(*instead)
    assert factors_of(network(), other) == ()


def test_channels_between_are_removed_like_all_others() -> None:
    model = network()
    factors = (Factor("0", "column", 7), Factor("2.m.0.1", "row", 9))
    pairs = factored(model, factors)
    graph = trace(pairs, INPUT)
    assert {"0.0", "2.m.0.1.0"} <= {layer.name for layer in graph.layers if layer.free.all()}
    keep = {"0.0": [0, 2, 5], "2.m.0.1.0": range(4), "0.1.conv": range(5)}
    plan = replace(PrunePlan.from_keep(graph, keep), factors=factors)
    small = compact(pairs, plan, graph)
    assert verify(mask(model, plan), small, INPUT)
    assert verify(compact(model, plan), small, INPUT, tolerance=0.0).max_abs == 0  # from the original weights
    assert factors_of(model, small) == (Factor("0", "column", 3), Factor("2.m.0.1", "row", 4))
    assert PrunePlan.from_json(plan.to_json()) == plan


def test_plans_of_channels_alone_stay_what_they_were_and_old_ones_load() -> None:
    plan = PrunePlan.from_keep(trace(network(), INPUT), {"0.conv": [1, 2]})
    written = json.loads(plan.to_json())
    assert written["format"] == 1
    assert written.keys() == {"format", "inputs", "layers"}
    assert PrunePlan.from_json(plan.to_json()) == plan
    sized = replace(plan, imgsz=576)
    assert json.loads(sized.to_json())["format"] == 2
    assert PrunePlan.from_json(sized.to_json()) == sized
    thin = replace(plan, factors=(Factor("0", "row", 1),))
    assert PrunePlan.from_json(thin.to_json()) == thin
    with pytest.raises(PlanError, match="join plans that agree"):
        _ = plan & sized


@pytest.mark.parametrize(
    ("factor", "said"),
    [
        (Factor("9", "column", 2), "9 is no block whose convolution can be factored"),
        (Factor("2.cv1", "column", 2), "2.cv1 is no block whose convolution can be factored"),
        (Factor("0", "column", 10), "give 1 to 9"),
        (Factor("0", "column", 0), "give 1 to 9"),
    ],
)
def test_what_cannot_be_factored_is_said(factor: Factor, said: str) -> None:
    with pytest.raises(PlanError, match=said):
        factored(network(), [factor])


@pytest.mark.parametrize(
    "entry", [{"first": "diagonal"}, {"rank": 0}, {"rank": -1}, {"rank": "many"}, {"block": None, "rank": None}]
)
def test_a_damaged_factor_is_no_plan(entry: dict[str, object]) -> None:
    factor = {"block": "0", "first": "row", "rank": 3} | entry
    text = json.dumps({"format": 2, "inputs": [], "layers": [], "imgsz": None, "factors": [factor]})
    with pytest.raises(PlanError, match="no pruning plan"):
        PrunePlan.from_json(text)


@pytest.mark.parametrize(
    "odd", [{"groups": 2}, {"padding": 1, "padding_mode": "reflect"}, {"padding": "same"}, {"kernel_size": (1, 3)}]
)
def test_convolutions_that_two_plain_ones_cannot_stand_for_are_left_alone(odd: dict[str, Any]) -> None:
    unit = Unit(4, 4)
    model = nn.Sequential(unit, Unit(4, 4))
    assert factorable(model) == {"0": "0.conv", "1": "1.conv"}
    for other in (nn.Conv2d(4, 4, **({"kernel_size": 3} | odd)), nn.Identity()):
        unit.conv = other  # type: ignore[assignment]
        assert factorable(model) == {"1": "1.conv"}


@pytest.mark.parametrize("kernel", [2, (2, 3), (3, 2)])
def test_kernels_of_two_are_factored(kernel: Any) -> None:
    unit = Unit(4, 4)
    unit.conv = nn.Conv2d(4, 4, kernel)
    assert factorable(nn.Sequential(unit)) == {"0": "0.conv"}


def test_a_block_at_two_places_is_left_alone() -> None:
    """Replaced at one of its paths only, it would be another module at the other."""
    unit = Unit(4, 4)
    model = nn.Sequential(unit, Unit(4, 4), unit)
    assert factorable(model) == {"1": "1.conv"}


def test_what_a_top_level_block_reads_stays_with_the_pair() -> None:
    model = nn.Sequential(nn.Conv2d(3, 3, 3)).eval()
    for name, value in {"i": 4, "f": [-1, 2], "type": "Conv", "np": 7}.items():
        setattr(model[0], name, value)
    block, before = model[0], nn.Identity()
    _replace(model, "0", before)
    assert [*model[0]] == [before, block]
    assert (model[0].i, model[0].f, model[0].type, model[0].np) == (4, [-1, 2], "Conv", 7)
    assert not model[0].training
