"""A whole network's convolutions as pairs, to a target, and fitted through what follows them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from detectors import Detector, Images
from torch import nn

from seqprune import PrunePlan, trace
from seqprune.budget.cost import gflops, parameters
from seqprune.budget.factoring import LEAST_SCALE, Factoring, _costs, _scale, observe, share_left
from seqprune.budget.importance import DAMPING, variances
from seqprune.budget.meet import FAR
from seqprune.budget.target import Target
from seqprune.errors import InputError
from seqprune.graph import sole
from seqprune.graph.factor import Factor, First, aligned, factored
from seqprune.observe.patches import Drawn
from seqprune.observe.reading import reading_of
from seqprune.observe.relevance import Relevance
from seqprune.observe.stages import stages_of
from seqprune.repair.refit import refit
from seqprune.runtimes.layers import Chain
from seqprune.surgery import verify
from seqprune.testing.networks import Unit

INPUT = torch.zeros(1, 3, 32, 32)


@pytest.fixture(autouse=True)
def units(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sole, "ONE_CONVOLUTION", {f"{Unit.__module__}.Unit": "conv"})
    return


def strided() -> nn.Module:
    model = Detector()
    model.get_submodule("model.1").conv.stride = (2, 2)  # type: ignore[union-attr]
    return model


def seen(kind: str) -> Factoring:
    model = strided()
    return observe(model, Images(), kind, INPUT, reading_of(model, next(iter(Images()))))


@pytest.mark.parametrize(("kind", "count"), [("params", parameters), ("flops", lambda m: gflops(m, INPUT))])
def test_costs_are_those_of_the_network_that_comes_out(kind: str, count: object) -> None:
    factoring = seen(kind)
    for share in (0.9, 0.75):
        made = factoring.to_target(Target(kind, share), INPUT, 1)
        left = count(made.model) / count(factoring.model)  # type: ignore[operator]
        assert share - 0.05 < left <= share
        assert verify(factoring.model, made.reference, INPUT, tolerance=0.0)
        chosen = {factor.block: (factoring.curves[factor.block], factor) for factor in made.factors}
        saved = sum(
            ways[0].whole - next(w for w in ways if w.first == factor.first).each * factor.rank
            for ways, factor in chosen.values()
        )
        whole = parameters(factoring.model) if kind == "params" else 1e9 * gflops(factoring.model, INPUT) / 2
        assert 1 - saved / whole == pytest.approx(left, abs=1e-9)


def test_what_cannot_be_met_is_said_and_what_is_protected_stays() -> None:
    factoring = seen("params")
    with pytest.raises(InputError, match="factors alone do not bring this network to params"):
        factoring.to_target(Target("params", 0.1), INPUT, 1)
    nearest = factoring.to_target(Target("params", 0.1), INPUT, 1, nearest=True)
    assert {factor.rank for factor in nearest.factors} == {1}
    assert {factor.block for factor in nearest.factors} == set(factoring.curves)
    about = (factoring.model, Images(), "params", INPUT, reading_of(factoring.model, next(iter(Images()))))
    spared = observe(*about, protect=("model.2", "model.3.conv"))
    assert {block.split(".")[1] for block in spared.curves} == {"0", "1", "4"}


def test_the_second_of_a_pair_is_fitted_to_what_the_layer_made() -> None:
    """The reference has other kernels: taken for one that did not change, a pair stayed as it was."""
    factoring = seen("params")
    made = factoring.to_target(Target("params", 0.7), INPUT, 1)
    graph = trace(made.model, INPUT)
    removed = PrunePlan((), graph.inputs).removed_groups(graph)
    stages = stages_of(made.reference, INPUT)
    repaired = replace(made).model
    before = distance(factoring.model, repaired)
    names = refit(made.reference, repaired, graph, removed, Images(), stages, ridge=1e-3)
    assert {f"{factor.block}.1.conv" for factor in made.factors} <= set(names)
    assert distance(factoring.model, repaired) < 0.8 * before


class Fork(nn.Module):
    """Two layers that read the same."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.left, self.right, self.join = Unit(3, 4), Unit(4, 4), Unit(4, 4), nn.Conv2d(8, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return self.join(torch.cat([self.left(x), self.right(x)], 1))


def test_one_pair_in_a_stage_is_enough_to_fit_it() -> None:
    model = Fork().eval()
    factors = (Factor("left", "column", 2),)
    made, reference = factored(model, factors), aligned(model, factors)
    graph, stages = trace(made, INPUT), [["stem.conv"], ["right.conv", "left.1.conv"], ["join"]]
    removed = PrunePlan((), graph.inputs).removed_groups(graph)
    assert refit(reference, made, graph, removed, Images(), stages) == ("left.1.conv", "join")


def distance(one: nn.Module, other: nn.Module) -> float:
    with torch.no_grad():
        batches = [batch.images.float() / 255 for batch in Images(seed=100)]
        return sum(float((one(images) - other(images)).square().mean()) for images in batches)


def test_rows_are_brought_back_by_what_they_were_multiplied_with() -> None:
    """None by less than a share of the greatest: an output that hardly counts is still fitted."""
    conv = nn.Conv2d(3, 4, 3)
    by = torch.tensor([2.0, 0.5, 1e-9, 0.0]).double()
    scaled = conv.weight.detach().double().flatten(1) * by[:, None]
    torch.testing.assert_close(_scale(conv, scaled), by.clamp(min=LEAST_SCALE * 2.0))
    torch.testing.assert_close(_scale(conv, scaled / 100), by.clamp(min=LEAST_SCALE * 2.0) / 100)
    assert _scale(conv, scaled * 0).tolist() == [1.0] * 4


@pytest.mark.parametrize("first", ["column", "row"])
def test_a_pair_costs_what_its_two_convolutions_do(first: First) -> None:
    """The first reads every position that the second reads along the other side, so it runs that stride more often."""
    conv = nn.Conv2d(5, 7, (3, 1), stride=(4, 2), bias=False)
    one, two = ((3, 1), (1, 1)) if first == "column" else ((1, 1), (3, 1))
    weights = [5 * one[0] * one[1], 7 * two[0] * two[1]]
    assert _costs(conv, first, None) == (3 * 5 * 7, sum(weights))
    assert _costs(conv, first, 10) == (10 * 3 * 5 * 7, 10 * ((2 if first == "column" else 4) * weights[0] + weights[1]))


def test_errors_count_as_what_follows_scales_them_and_in_all_what_the_layer_does() -> None:
    """Scaled rows vary by a layer's importance in sum, and among themselves as BatchNorm and slope have it."""
    model, random = strided(), torch.Generator().manual_seed(0)
    model.add_module("spare", Unit(3, 4))  # which nothing runs
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    outputs = {name: model.get_submodule(name).out_channels for name in names}
    curvature, slope = (
        {name: torch.rand(n, generator=random).double() + 0.1 for name, n in outputs.items()} for _ in range(2)
    )
    relevance = Relevance(curvature, slope, {(0, "model.1.conv"): Drawn((torch.zeros(8, dtype=torch.short),) * 3)})
    found = observe(model, Images(), "params", INPUT, reading_of(model, next(iter(Images()))), relevance=relevance)
    varies = {block: variances(model, f"{block}.conv", patches) for block, patches in found.patches.items()}
    costs = {block: float((curvature[f"{block}.conv"] * each).sum()) for block, each in varies.items()}
    importance = {block: float((found.scales[block].square() * each).sum()) for block, each in varies.items()}
    (one, *others) = costs
    for block in others:
        assert importance[block] / importance[one] == pytest.approx((costs[block] / costs[one]) ** DAMPING, rel=1e-3)
    for block, scales in found.scales.items():
        norm = model.get_submodule(f"{block}.bn")
        wanted = (norm.weight / (norm.running_var + norm.eps).sqrt()).abs() * slope[f"{block}.conv"].sqrt()
        torch.testing.assert_close(scales / scales.max(), wanted / wanted.max(), rtol=1e-4, atol=1e-3)
    made = found.to_target(Target("params", 0.7), INPUT, 1)
    known = made.relevance
    assert known is not None
    assert "model.1" in {factor.block for factor in made.factors}
    for factor in made.factors:  # by the names of both
        assert known.curvature[f"{factor.block}.1.conv"] is curvature[f"{factor.block}.conv"]
        assert known.slope[f"{factor.block}.1.conv"] is slope[f"{factor.block}.conv"]
    assert known.curvature["model.5.0"] is curvature["model.5.0"]
    assert list(known.drawn) == [(0, "model.1.1.conv")]


def test_what_is_known_of_a_layer_varies_as_its_patches_do() -> None:
    """As those of all positions, of which some are looked at."""
    images = torch.cat([batch.images for batch in Images()]).float() / 255
    patches = nn.functional.unfold(images, 3, padding=1).transpose(1, 2).flatten(0, 1).double()
    every, some = torch.trace(torch.cov(patches.T)), torch.trace(seen("params").patches["model.0"])
    assert 0.5 < float(some / every) < 2


class Clock:
    """Takes a second for every multiplication."""

    def milliseconds(self, model: nn.Module) -> float:
        return 1e9 * gflops(model, INPUT) / 2

    def layers(self, chains: tuple[Chain, ...]) -> list[float]:
        return [1e9 * gflops(nn.Sequential(*chain.module())[:-1], chain.inputs()) / 2 for chain in chains]

    def share(self, whole: nn.Module, smaller: nn.Module) -> float:
        return self.milliseconds(smaller) / self.milliseconds(whole)


def test_the_nearest_in_time_is_as_far_as_pairs_go() -> None:
    model = strided()
    timed = observe(model, Images(), "latency", INPUT, reading_of(model, next(iter(Images()))), timing=Clock())
    made = timed.to_target(Target("latency", 0.3), INPUT, 1, nearest=True)
    assert made.factors
    assert share_left(model, made.model, "latency", INPUT, Clock()) > 0.3 * (1 + FAR)


def test_linear_layers_are_among_those_that_importance_is_relative_to() -> None:
    """Of three the convolution in the middle has an importance of one; of two none has."""
    pooled = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    model = nn.Sequential(Unit(3, 4), Unit(4, 4), *pooled).eval()
    reading = reading_of(model, next(iter(Images())))
    alike = observe(model, Images(), "params", INPUT, reading)
    varies = {name: float(variances(model, f"{name}.conv", alike.patches[name]).sum()) for name in ("0", "1")}
    curvature = {f"{name}.conv": torch.full((4,), by / varies[name]).double() for name, by in (("0", 1), ("1", 4))}
    relevance = Relevance(curvature | {"4": torch.full((2,), 1e9).double()})
    found = observe(model, Images(), "params", INPUT, reading, relevance=relevance)
    middle = variances(model, "1.conv", found.patches["1"])
    assert float((found.scales["1"].square() * middle).sum()) == pytest.approx(1, rel=1e-3)


def test_by_a_clock_that_counts_multiplications_pairs_are_chosen_as_by_operations() -> None:
    """Layers of few channels were timed at one rank: each other was taken to cost the same, and pairs that were to
    leave 0.93 of the time left 1.2 of it.
    """
    counted, model = seen("flops"), strided()
    timed = observe(
        model, Images(), "latency", INPUT, reading_of(model, next(iter(Images()))), timing=Clock(), protect=("model.4",)
    )
    assert set(timed.curves) == {block for block in counted.curves if not block.startswith("model.4")}
    for block, ways in timed.curves.items():
        for way, other in zip(ways, counted.curves[block], strict=True):
            assert way.first == other.first
            assert (way.whole, way.each) == (pytest.approx(other.whole), pytest.approx(other.each))
            assert way.base == pytest.approx(0, abs=1e-6 * way.whole)
    counted = replace(counted, curves={block: counted.curves[block] for block in timed.curves})
    whole = 1e9 * gflops(model, INPUT) / 2
    assert timed.share(INPUT) == pytest.approx(sum(ways[0].whole for ways in counted.curves.values()) / whole)
    assert timed.share(INPUT) == pytest.approx(counted.share(INPUT))
    made = timed.to_target(Target("latency", 0.93), INPUT, 1)
    assert {factor.rank for factor in made.factors} == {16}  # what a processor does at once
    assert made.factors == counted.to_target(Target("flops", 0.93), INPUT, 16).factors
    assert share_left(model, made.model, "latency", INPUT, Clock()) == share_left(model, made.model, "flops", INPUT)
