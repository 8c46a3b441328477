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
from seqprune.budget.factoring import LEAST_SCALE, Factoring, _scale, observe
from seqprune.budget.target import Target
from seqprune.errors import InputError
from seqprune.graph import sole
from seqprune.observe.reading import reading_of
from seqprune.observe.stages import stages_of
from seqprune.repair.refit import refit
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
    assert _scale(conv, scaled * 0).tolist() == [1.0] * 4
