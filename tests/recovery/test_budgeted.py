"""Prices are exact, targets are met, and what is protected stays."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from detectors import Detector, Images
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from seqprune import PrunePlan, compact, mask, trace, verify
from seqprune.budget.criteria import Scoring, scores
from seqprune.budget.price import Price, operations
from seqprune.budget.second_order import choose_globally, readings_of
from seqprune.budget.spread import Budget, by_scores, protected
from seqprune.budget.surgeon import RIDGE
from seqprune.engine.steps import reports
from seqprune.errors import InputError
from seqprune.observe.patches import Drawn, Sampler
from seqprune.observe.reading import reading_of
from seqprune.observe.relevance import Relevance
from seqprune.testing.networks import Network, example, random_removal
from seqprune.testing.strategies import networks

INPUT = torch.zeros(1, 3, 32, 32)
lawful = settings(max_examples=25)


def parameters(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@lawful
@given(networks(), st.integers(0, 2**16), st.sampled_from([0.2, 0.5, 0.8]))
def test_the_price_of_what_stays_is_the_size_of_the_compact_model(net: Network, seed: int, share: float) -> None:
    graph = trace(net, example())
    removed = random_removal(graph, seed, share)
    small = compact(net, PrunePlan.from_removed(graph, removed), graph)
    assert Price(net, graph).total(removed) == parameters(small)


def test_operations_are_those_that_are_run() -> None:
    model = Detector()
    graph = trace(model, INPUT)
    price = Price(model, graph, operations(model, INPUT))
    for removed in (np.zeros(graph.group_count, bool), random_removal(graph, 1)):
        small = compact(model, PrunePlan.from_removed(graph, removed), graph)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            small(INPUT)
        assert 2 * price.total(removed) == counter.get_total_flops()


def test_savings_are_differences_of_the_total() -> None:
    model = Detector()
    graph = trace(model, INPUT)
    price, removed = Price(model, graph), random_removal(graph, 2, 0.3)
    savings = price.savings(removed)
    for group in np.flatnonzero(~graph.pinned & ~removed)[::5]:
        more = removed.copy()
        more[group] = True
        # A group that is both input and output of one tensor saves a little less than both sides say.
        assert savings[group] == pytest.approx(price.total(removed) - price.total(more), rel=0.05)


def test_what_is_chosen_for_a_budget_is_the_beginning_of_one_order() -> None:
    model = Detector()
    graph = trace(model, INPUT)
    price, readings = Price(model, graph), readings_of(model, graph, Images())
    scored = scores("obs", Scoring(model, graph, readings=readings))
    for target in (0.9, 0.6):
        found = choose_globally(model, graph, Images(), price, Budget(target, floor=0, round_to=1))
        np.testing.assert_array_equal(found, by_scores(graph, price, scored, target, spread="absolute", floor=0))


def test_what_meets_a_target_of_another_measure_is_offered_the_whole_order() -> None:
    """Here of half of what is saved, as time may be: 0.9 of it is 0.8 of the parameters."""
    model = Detector()
    graph = trace(model, INPUT)
    price = Price(model, graph)

    def halved(gone: np.ndarray) -> float:
        return (1 + price.share(gone)) / 2

    for target, other, share in ((0.5, 0.5, None), (0.8, 0.9, halved)):
        wanted = choose_globally(model, graph, Images(), price, Budget(target, round_to=1))
        asked = Budget(0.95, round_to=1)
        found = choose_globally(
            *(model, graph, Images(), price, asked), meet=lambda at, other=other: at(other), share=share
        )
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("floor", [0.0, 0.5, 0.6])
def test_every_layer_keeps_its_least_share(floor: float) -> None:
    model = Detector()
    graph = trace(model, INPUT)
    budget = Budget(0.5, floor=floor, round_to=1)
    removed = choose_globally(model, graph, Images(), Price(model, graph), budget)
    left = [float((~removed[layer.groups]).mean()) for layer in graph.all_layers]
    assert min(left) >= floor
    assert floor or min(left) < 0.5


@pytest.mark.parametrize("share", [0.9, 0.7, 0.5])
@pytest.mark.parametrize("round_to", [1, 4])
def test_targets_are_met_within_two_percent(share: float, round_to: int) -> None:
    model = Detector()
    graph = trace(model, INPUT)
    price = Price(model, graph)
    removed = choose_globally(model, graph, Images(), price, Budget(share, round_to=round_to))
    # Four channels of so small a network are up to a tenth of it.
    assert share - (0.03 if round_to == 1 else 0.12) <= price.share(removed) <= share + 0.02
    assert graph.unbalanced(removed) is None
    plan = PrunePlan.from_removed(graph, removed)
    masked = mask(model, plan, graph)
    assert verify(masked, compact(model, plan, graph), INPUT + 0.5).max_rel <= 1e-4
    assert [step.layer for step in reports(graph, plan)] == [layer.name for layer in plan.layers]


def test_what_is_protected_stays_whole() -> None:
    model = Detector()
    graph = trace(model, INPUT)
    removed = choose_globally(model, graph, Images(), Price(model, graph), Budget(0.8, protect=("model.2", "model.1")))
    assert not removed[protected(graph, ("model.1", "model.2"))].any()
    assert removed.any()
    with pytest.raises(InputError, match=r"no layer in 'model\.99'"):
        protected(graph, ("model.99",))


class Prompted(Detector):
    """With a branch that runs for prompts alone, as YOLOE's encoder of visual prompts: images say nothing of it."""

    def __init__(self) -> None:
        super().__init__()
        self.prompt = nn.Sequential(nn.Conv2d(24, 6, 1), nn.ReLU(), nn.Conv2d(6, 3, 1))
        self.prompted = True

    def forward(self, x: torch.Tensor) -> Any:
        seen = self.model[:4](x)
        found = self.model[4:](seen)
        return (found, self.prompt(seen)) if self.prompted else found


def test_what_no_image_reaches_keeps_what_it_reads() -> None:
    model = Prompted().eval()
    graph = trace(model, INPUT)
    model.prompted = False
    removed = choose_globally(model, graph, Images(), Price(model, graph), Budget(0.8))
    assert removed.any()
    for layer in ("model.3.conv", "prompt.0", "prompt.2"):
        assert not removed[graph.by_name[layer].groups].any()


def test_a_target_out_of_reach_names_what_can_be_reached() -> None:
    model = Detector()
    graph = trace(model, INPUT)
    with pytest.raises(InputError, match=r"a target of 0\.05 cannot be met, 0\.\d+ stays at the least"):
        choose_globally(model, graph, Images(), Price(model, graph), Budget(0.05, floor=0.5))


def test_the_choice_is_the_same_every_time() -> None:
    model = Detector()
    graph = trace(model, INPUT)
    chosen = [choose_globally(model, graph, Images(), Price(model, graph), Budget(0.7, round_to=1)) for _ in range(2)]
    assert (chosen[0] == chosen[1]).all()


def test_a_convolution_whose_patches_cannot_be_shown_keeps_its_inputs() -> None:
    """Padding that is not of zeros; padding given as a word ended in an error once, and is shown."""
    torch.manual_seed(0)
    mirrored = torch.nn.Conv2d(16, 8, 3, padding=1, padding_mode="reflect")
    last = torch.nn.Conv2d(8, 4, 3, padding="same")
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3), torch.nn.ReLU(), mirrored, torch.nn.ReLU(), last)
    graph = trace(model.eval(), INPUT)
    removed = choose_globally(model, graph, Images(), Price(model, graph), Budget(0.8, round_to=1))
    assert not removed[graph.by_name["0"].groups].any()
    assert removed[graph.by_name["2"].groups].any()


@pytest.mark.parametrize("kind", ["curvature", "together"])
def test_what_a_layer_reads_whose_errors_cost_more_leaves_later(kind: str) -> None:
    model = Detector()
    graph = trace(model, INPUT)
    about = (model, graph, Images(), Price(model, graph), Budget(0.8, round_to=1))
    left = []
    for by in (1e-4, 1e4):
        costs = {name: torch.ones(len(groups)).double() for name, groups in graph.weight_outputs.items()}
        costs["model.3.conv"] *= by
        removed = choose_globally(*about, relevance=Relevance(**{kind: costs}))
        left.append(int((~removed[graph.weight_inputs["model.3.conv"]]).sum()))
    assert left[0] < left[1]


def test_rows_of_readings_are_as_batch_normalisation_scales_them() -> None:
    model = Detector()
    graph = trace(model, INPUT)
    read = graph.weight_inputs["model.3.conv"].tolist()
    (source,) = (each for each in readings_of(model, graph, Images()).sources if each.groups.tolist() == read)
    layer, norm = model.get_submodule("model.3.conv"), model.get_submodule("model.3.bn")
    by = source.readers[0].weight.norm(dim=1) / layer.weight.detach().double().flatten(1).norm(dim=1)
    wanted = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach().double()
    torch.testing.assert_close(by / by.sum(), wanted / wanted.sum(), rtol=1e-4, atol=0)


def test_what_does_not_vary_is_told_apart_by_as_much_as_is_asked_for() -> None:
    model = Detector()
    graph = trace(model, INPUT)
    about = (model, graph, Images(), Price(model, graph))
    plain, told, other = (
        choose_globally(*about, Budget(0.7, round_to=1, **how)) for how in ({}, {"ridge": RIDGE}, {"ridge": 1e3})
    )
    assert (plain == told).all()
    assert (plain != other).any()


def test_what_is_known_of_the_layers_is_looked_at_no_more() -> None:
    model = Detector()
    graph, reading = trace(model, INPUT), reading_of(model, next(iter(Images())))
    fewer = replace(reading, names=tuple(name for name in reading.names if name != "model.3.conv"))
    about = (model, graph, Images(), Price(model, graph), Budget(0.8, round_to=1))
    read = graph.weight_inputs["model.3.conv"]
    assert choose_globally(*about, reading=reading)[read].any()
    assert not choose_globally(*about, reading=fewer)[read].any()


def test_what_a_linear_layer_reads_leaves_too() -> None:
    torch.manual_seed(0)
    pooled = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4))
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), *pooled).eval()
    graph = trace(model, INPUT)
    removed = choose_globally(model, graph, Images(), Price(model, graph), Budget(0.8, round_to=1))
    assert removed[graph.by_name["0"].groups].any()


def test_a_layer_of_one_output_that_cannot_be_shown_keeps_its_inputs() -> None:
    """It has one number for each channel, as PReLU has, which reads none."""
    torch.manual_seed(0)
    mirrored = nn.Conv2d(16, 1, 1, padding=1, padding_mode="reflect")
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.PReLU(16), nn.Conv2d(16, 16, 1), nn.ReLU(), mirrored).eval()
    graph = trace(model, INPUT)
    removed = choose_globally(model, graph, Images(), Price(model, graph), Budget(0.8, round_to=1))
    assert not removed[graph.by_name["2"].groups].any()
    assert removed[graph.by_name["0"].groups].any()


class Shared(nn.Module):
    """Two convolutions of one weight, of which the second cannot be shown."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.read = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 8, 3, padding=1)
        self.mirrored = nn.Conv2d(16, 8, 3, padding=1, padding_mode="reflect")
        self.mirrored.weight = self.read.weight
        self.last = nn.Conv2d(8, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seen = self.first(x).relu()
        made: torch.Tensor = self.last((self.read(seen) + self.mirrored(seen)).relu())
        return made


def test_what_a_shared_weight_reads_where_it_cannot_be_shown_stays() -> None:
    model = Shared().eval()
    graph = trace(model, INPUT)
    assert graph.by_name["first"].free.all()
    removed = choose_globally(model, graph, Images(), Price(model, graph), Budget(0.8, round_to=1))
    assert not removed[graph.by_name["first"].groups].any()
    assert removed[graph.by_name["read"].groups].any()


def test_positions_are_drawn_as_they_are_asked_for() -> None:
    seen: list[int] = []

    class Telling(Sampler):
        def draw(self, *given: Any) -> Drawn:
            seen.append(self.positions)
            return super().draw(*given)

    model = Detector()
    graph = trace(model, INPUT)
    choose_globally(model, graph, Images(), Price(model, graph), Budget(0.8), sampler=Telling(positions=9))
    assert set(seen) == {9}


class Borrowed(nn.Module):
    """Its layer's weight is taken first by a call that has another number of groups than the layer."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.whole, self.halved, self.out = (
            nn.Conv2d(3, 4, 3, padding=1),
            nn.Conv2d(3, 8, 3, padding=1),
            nn.Conv2d(6, 2, 1),
        )
        self.shared = nn.Conv2d(4 * groups, 6, 3, padding=1, groups=groups)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        ways = {1: self.whole(x).relu(), 2: self.halved(x).relu()}
        mine = self.shared.groups
        borrowed = nn.functional.conv2d(ways[3 - mine], self.shared.weight, padding=1, groups=3 - mine)
        found: torch.Tensor = self.out(borrowed.relu() + self.shared(ways[mine]).relu())
        return found


@pytest.mark.parametrize("groups", [1, 2])
def test_a_layer_whose_weight_is_taken_in_other_groups_is_not_weighed_as_its_own(groups: int) -> None:
    torch.manual_seed(0)
    model = Borrowed(groups).eval()
    graph = trace(model, INPUT)
    removed = choose_globally(model, graph, Images(), Price(model, graph), Budget(0.8, round_to=1))
    assert removed.any()
    for layer in ("whole", "halved"):
        assert not removed[graph.by_name[layer].groups].any()
