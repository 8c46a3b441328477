"""What leaves next, and how far an order is followed, against references that try everything."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectors import Detector
from torch import nn

from seqprune.budget.cost import gflops, latencies_ms, parameters
from seqprune.budget.factoring import share_left
from seqprune.budget.meet import FAR
from seqprune.budget.price import Price, operations
from seqprune.budget.size import LEAST_LEFT, MOST_LEFT, Candidate, best, candidates, folds
from seqprune.budget.spread import TOLERANCE, Budget, _within_floor, order_of, pools, prefix_for
from seqprune.budget.target import Target, measured_share, meeting, price_of
from seqprune.budget.units import Units
from seqprune.errors import InputError
from seqprune.graph import ChannelGraph, trace
from seqprune.graph.channels import Balance
from seqprune.plan import PrunePlan
from seqprune.surgery import compact
from seqprune.testing.networks import randomise

X = torch.zeros(1, 3, 32, 32)


@pytest.fixture(scope="module")
def known() -> tuple[nn.Module, ChannelGraph]:
    model = Detector().eval()
    randomise(model, 3)
    return model, trace(model, X)


# ---- units --------------------------------------------------------------------------------------------------------


def may_leave(unit: tuple[int, ...], gone: set[int], free: set[int], layers: list[list[int]], floor: float) -> bool:
    """Whether every layer is above its floor before the unit leaves."""
    if not set(unit) <= free - gone:
        return False
    for layer in layers:
        if set(unit) & set(layer) and sum(g not in gone for g in layer) <= max(1, math.ceil(floor * len(layer))):
            return False
    return True


def units_of(count: int, balances: list[list[list[int]]], costs: Any, leaves: Any) -> Iterator[tuple[int, ...]]:
    bound = {group for sections in balances for section in sections for group in section}
    yield from ((group,) for group in range(count) if group not in bound and leaves((group,)))
    for sections in balances:
        open_ = [[g for g in section if leaves((g,))] for section in sections]
        if all(open_):
            unit = tuple(min(each, key=lambda g: costs[g]) for each in open_)
            if len(set(unit)) == len(unit):
                yield unit


@pytest.mark.parametrize("seed", range(12))
def test_the_unit_that_leaves_next_is_the_cheapest_there_is(seed: int) -> None:
    draw = np.random.default_rng(seed)
    count = 14
    layers = [list(range(6)), [6, 7, 8, 9], [8, 9, 10, 11, 12, 12], [13]]
    balances = [[[[0, 1], [2, 3]], [[4, 5], [6, 7]]], [[[0, 1, 2], [1, 4, 5]]], []][seed % 3]
    free = {g for g in range(count) if draw.random() < 0.9}
    gone = {g for g in range(count) if draw.random() < 0.1}
    floor = [0.0, 0.3, 0.5][seed % 3]
    masks = [np.isin(np.arange(count), list(each)) for each in (free, gone)]
    made = tuple(Balance(tuple(np.array(s) for s in sections), "halves") for sections in balances)
    units = Units(*masks, made, tuple(np.array(each) for each in layers), floor)
    while True:
        costs, savings = draw.uniform(0, 1, count), draw.uniform(0, 1, count) * (draw.random(count) < 0.8)
        open_ = [
            *units_of(count, balances, costs, lambda unit: may_leave(unit, gone, free, layers, floor))  # noqa: B023
        ]
        found = units.cheapest(costs, savings)
        if found is None:
            assert open_ == []
            break
        worth = {unit: sum(costs[list(unit)]) / max(sum(savings[list(unit)]), 1e-9) for unit in open_}
        assert worth[found] == pytest.approx(min(worth.values()))
        units.remove(found)
        gone |= set(found)


# ---- orders -------------------------------------------------------------------------------------------------------


def signature(graph: ChannelGraph, group: int) -> tuple[int, ...]:
    """How often each layer and each section of a balance has a group."""
    makers = [layer.groups for layer in graph.all_layers]
    sections = [section for balance in graph.balances for section in balance.sections]
    return tuple(int((np.asarray(each) == group).sum()) for each in (*makers, *sections))


@pytest.mark.parametrize("seed", range(3))
def test_a_pool_holds_what_the_same_layers_make_and_the_same_constraints_govern(
    known: tuple[nn.Module, ChannelGraph], seed: int
) -> None:
    _, graph = known
    free = np.random.default_rng(seed).random(graph.group_count) < 0.8
    expected: dict[tuple[int, ...], list[int]] = {}
    for group in np.flatnonzero(free).tolist():
        expected.setdefault(signature(graph, group), []).append(group)
    assert sorted(pool.tolist() for pool in pools(graph, free)) == sorted(expected.values())
    assert pools(graph, np.zeros(graph.group_count, bool)) == []


@pytest.mark.parametrize("spread", ["uniform", "global", "absolute"])
@pytest.mark.parametrize("scored", ["drawn", "equal", "zero", "a zero layer"])
def test_orders_by_a_key_that_can_be_said(known: tuple[nn.Module, ChannelGraph], spread: Any, scored: str) -> None:
    _, graph = known
    draw = np.random.default_rng(1)
    free = draw.random(graph.group_count) < 0.8
    scores = {"drawn": draw.uniform(0, 3, len(free)), "zero": np.zeros(len(free))}.get(scored, np.ones(len(free)))
    if scored == "a zero layer":
        scores[graph.by_name["model.3.conv"].groups] = 0
    key = {}
    for pool in pools(graph, free):
        ranked = sorted(pool.tolist(), key=lambda g: (scores[g], g))
        mean = sum(scores[pool]) / len(pool)
        for rank, group in enumerate(ranked):
            share = scores[group] / mean if mean else 0.0
            key[group] = {"uniform": (rank + 1) / len(pool), "global": share, "absolute": scores[group]}[spread]
    found = order_of(graph, scores, free, spread).tolist()
    assert sorted(found) == np.flatnonzero(free).tolist()
    assert found == sorted(key, key=lambda g: (round(key[g], 9), g)) or spread == "global"
    assert [key[g] for g in found] == pytest.approx(sorted(key.values()))


@pytest.mark.parametrize("floor", [0.0, 0.1, 0.3, 0.5, 0.51, 1.0])
def test_what_would_take_a_layer_below_its_floor_is_left_out_of_an_order(
    known: tuple[nn.Module, ChannelGraph], floor: float
) -> None:
    _, graph = known
    order = np.random.default_rng(0).permutation(np.flatnonzero(~graph.pinned))
    left = {layer.name: layer.channels for layer in graph.all_layers}
    least = {layer.name: max(1, math.ceil(floor * layer.channels)) for layer in graph.all_layers}
    expected = []
    for group in order.tolist():
        takes = {layer.name: int((layer.groups == group).sum()) for layer in graph.all_layers}
        if all(left[name] - many >= least[name] for name, many in takes.items() if many):
            expected.append(group)
            left = {name: left[name] - takes[name] for name in left}
    assert _within_floor(graph, order, floor).tolist() == expected


@pytest.mark.parametrize("round_to", [1, 4])
@pytest.mark.parametrize("target", [0.95, 0.7, 0.4])
def test_the_beginning_of_an_order_that_is_followed_is_the_shortest(
    known: tuple[nn.Module, ChannelGraph], target: float, round_to: int
) -> None:
    model, graph = known
    price, free = Price(model, graph), ~graph.pinned
    order = [[group] for group in _within_floor(graph, order_of(graph, np.arange(len(free)) % 7.0, free), 0.1).tolist()]
    found = prefix_for(graph, price.share, order, free, Budget(target, round_to=round_to))
    scores = np.full(graph.group_count, float(len(order)))
    for rank, (group,) in enumerate(order):
        scores[group] = rank
    for count in range(len(order) + 1):
        removed = graph.legalise(scores < count, scores, free, round_to)
        if price.share(removed) <= target:
            break
    np.testing.assert_array_equal(found, removed)


def test_counts_are_rounded_up_to_multiples_of_eight_where_nothing_is_said() -> None:
    assert Budget(0.5) == Budget(0.5, floor=0.1, protect=(), round_to=8, of=1.0)


def test_a_target_that_is_missed_by_little_is_met(known: tuple[nn.Module, ChannelGraph]) -> None:
    """Rounding may leave more; by how much more, and no farther."""
    _, graph = known
    order, free = [[int(group)] for group in np.flatnonzero(~graph.pinned)[:5]], ~graph.pinned
    near, far = 0.5 * (1 + TOLERANCE) - 1e-6, 0.5 * (1 + TOLERANCE) + 1e-6
    assert prefix_for(graph, lambda _: near, order, free, Budget(0.5)).any()
    with pytest.raises(InputError, match=r"cannot be met, 0\.510 stays at the least, with it 0\.2 of every layer"):
        prefix_for(graph, lambda _: far, order, free, Budget(0.5, floor=0.2))
    assert not prefix_for(graph, lambda _: 0.5, order, free, Budget(0.5)).any()


def test_where_nothing_can_leave_the_first_layer_says_why() -> None:
    graph = trace(nn.Sequential(nn.Conv2d(3, 4, 1)), X)
    with pytest.raises(InputError, match="no channel of any layer can leave, those of 0 since network output"):
        prefix_for(graph, lambda _: 1.0, [], ~graph.pinned, Budget(0.5))


def test_a_target_of_what_others_left_is_refused_by_its_own_number(known: tuple[nn.Module, ChannelGraph]) -> None:
    """Pairs had left 0.62 of the operations, and 0.01 was refused as a target of 0.0161154."""
    _, graph = known
    order, free = [[int(group)] for group in np.flatnonzero(~graph.pinned)[:5]], ~graph.pinned
    with pytest.raises(InputError, match=r"a target of 0\.01 cannot be met, 0\.250 stays at the least"):
        prefix_for(graph, lambda _: 0.5, order, free, Budget(0.02, of=0.5))


@pytest.mark.parametrize(
    "wrong", [{"target": 0.0}, {"target": 1.01}, {"floor": -0.1}, {"floor": 1.1}, {"round_to": 0}, {"target": -1}]
)
def test_numbers_that_no_budget_has(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="the target is a share in"):
        Budget(**{"target": 0.5, **wrong})
    for right in ({"target": 1.0}, {"floor": 0.0}, {"floor": 1.0}, {"round_to": 1}):
        Budget(**{"target": 0.5, **right})  # type: ignore[arg-type]


# ---- targets ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "params", "params=", "params=0", "params=1", "params=1.2", "params=-0.5"])
@pytest.mark.parametrize("kind", ["params", "speed"])
def test_what_is_no_target(text: str, kind: str) -> None:
    for asked in (text, text.replace("params", kind), "size=0.5", "params=nan", "params=half", "=0.5"):
        if asked == "params=0.5":
            continue
        with pytest.raises(InputError, match="is not understood"):
            Target.parse(asked)


@pytest.mark.parametrize("kind", ["params", "flops", "latency"])
def test_targets_as_they_are_written(kind: str) -> None:
    assert Target.parse(f" {kind} = 0.25") == Target(kind, 0.25)


def every_third(graph: ChannelGraph) -> Any:
    wanted = (np.arange(graph.group_count) % 3 == 0) & ~graph.pinned
    return graph.legalise(wanted, np.arange(graph.group_count, dtype=float), ~graph.pinned)


def test_a_share_of_operations_is_that_of_the_small_network(
    known: tuple[nn.Module, ChannelGraph], capsys: pytest.CaptureFixture[str]
) -> None:
    model, graph = known
    price, removed = price_of(Target("flops", 0.5), model, graph, X), every_third(graph)
    small = compact(model, PrunePlan.from_removed(graph, removed), graph)
    assert measured_share(Target("flops", 0.5), price, model, graph, X) is None  # every product has a weight
    rounded = Price(model, graph, operations(model, X), in_all=price.whole * (1 + 1e-12))
    assert rounded.beside > 0
    assert measured_share(Target("flops", 0.5), rounded, model, graph, X) is None
    assert price.share(removed) == pytest.approx(gflops(small, X) / gflops(model, X))
    more = Price(model, graph, operations(model, X), in_all=2 * price.whole)
    share = measured_share(Target("flops", 0.5), more, model, graph, X)
    assert measured_share(Target("latency", 0.5), more, model, graph, X) is None
    assert share is not None  # half of them hang on no weight, and might go as well
    assert share(removed) == pytest.approx(gflops(small, X) / gflops(model, X) / 2)
    assert price.whole == pytest.approx(1e9 * gflops(model, X) / 2)
    assert capsys.readouterr().out == ""
    plain = price_of(Target("params", 0.5), model, graph, X)
    assert plain.whole == parameters(model)
    assert plain.total(removed) == parameters(small)
    assert measured_share(Target("params", 0.5), plain, model, graph, X) is None
    assert share_left(model, small, "params", X) == parameters(small) / parameters(model)
    assert share_left(model, small, "flops", X) == pytest.approx(gflops(small, X) / gflops(model, X))
    assert share_left(model, small, "latency", X, Timing()) == 0.2 + 0.8 * parameters(small) / parameters(model)  # type: ignore[arg-type]


class Timing:
    """Time that is the parameters' share and a fifth that no channel takes along."""

    def __init__(self) -> None:
        self.asked: list[float] = []

    def share(self, model: nn.Module, small: nn.Module) -> float:
        self.asked.append(0.2 + 0.8 * parameters(small) / parameters(model))
        return self.asked[-1]


def test_a_target_in_time_is_met_by_the_clock(known: tuple[nn.Module, ChannelGraph]) -> None:
    model, graph = known
    price, free = Price(model, graph), ~graph.pinned
    order = order_of(graph, np.random.default_rng(0).random(len(free)), free)[:, None].tolist()

    def at(share: float) -> Any:
        return prefix_for(graph, price.share, order, free, Budget(share))

    timing = Timing()
    found = meeting(Target("latency", 0.7), model, graph, timing)(at)  # type: ignore[arg-type]
    left = timing.share(model, compact(model, PrunePlan.from_removed(graph, found), graph))
    assert abs(left / 0.7 - 1) <= FAR
    assert min(abs(each / 0.7 - 1) for each in timing.asked) == pytest.approx(abs(left / 0.7 - 1))
    np.testing.assert_array_equal(meeting(Target("params", 0.6), model, graph, None)(at), at(0.6))


def test_times_are_medians_of_as_many_runs_as_are_asked_for() -> None:
    class Counting(nn.Module):
        runs = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            Counting.runs += 1
            assert not torch.is_grad_enabled()
            assert not self.training
            return x + 1

    found = latencies_ms([Counting().train(), nn.Identity()], [X, X], runs=3)
    assert len(found) == 2
    assert all(0 < each < 1e3 for each in found)
    assert Counting.runs == 5 + 3
    assert len(latencies_ms([nn.Identity()], [X], runs=1)) == 1
    given = X.clone()
    latencies_ms([nn.ReLU6(inplace=True)], [given.sub_(1)], runs=1)
    assert (given == -1).all(), "what a network writes into is a copy"
    with pytest.raises(InputError, match="runs=0 must be at least 1"):
        latencies_ms([nn.Identity()], [X], runs=0)


def test_the_first_passes_are_not_counted() -> None:
    """They take what is compiled, allocated and looked up once."""

    class Warming(nn.Module):
        runs = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            Warming.runs += 1
            time.sleep(0.05 if Warming.runs <= 5 else 0)
            return x

    (found,) = latencies_ms([Warming()], [X], runs=5)
    assert found < 40


# ---- sizes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("imgsz", [650, 640, 96])
@pytest.mark.parametrize("others", [True, False])
@pytest.mark.parametrize("target", [0.9, 0.5, 0.12])
def test_sizes_are_multiples_and_the_largest_that_is_enough_alone_ends_them(
    imgsz: int, others: bool, target: float
) -> None:
    def cost(size: int) -> float:
        return size**2 + 1e4

    fits = [size for size in range(32, imgsz + 1, 32) if cost(size) <= target * cost(imgsz)]
    if not fits and not others:
        with pytest.raises(InputError, match=f"no multiple of 32 below {imgsz} pixels brings the cost to {target:g}"):
            candidates(imgsz, target, cost, others=others)
        return
    try:
        found = candidates(imgsz, target, cost, others=others)
    except InputError:
        assert not fits
        return
    assert [each.imgsz for each in found if each.left == 1] == ([max(fits)] if fits else [])
    assert others or len(found) == 1
    partial = [each for each in found if each.left != 1]
    expected = [
        size
        for size in range(imgsz - imgsz % 32, 31, -32)
        if 0.7 <= target * cost(imgsz) / cost(size) <= 0.95 and size > max(fits, default=0)
    ]
    assert [each.imgsz for each in partial] == (expected if others else [])


def test_one_of_the_sizes_is_just_enough() -> None:
    assert candidates(64, 0.25, lambda size: float(size**2), others=False) == [Candidate(32, 1.0)]
    for left in (LEAST_LEFT, MOST_LEFT):  # so much less is worth trying at the size as it is
        assert candidates(640, left, lambda size: float(size**2))[0] == Candidate(640, left)
    assert candidates(64, 1.0, lambda size: float(size**2))[-1] == Candidate(64, 1.0)


def test_no_size_below_one_that_is_enough_is_looked_at() -> None:
    """What a size costs is counted by running the network."""
    asked: list[int] = []

    def cost(size: int) -> float:
        asked.append(size)
        return float(size**2)

    assert candidates(640, 0.5, cost)[-1] == Candidate(448, 1.0)
    assert min(asked) == 448
    assert candidates(8, 0.02, cost, step=1)[-1] == Candidate(1, 1.0)


def test_where_nothing_is_known_the_middle_is_taken() -> None:
    found = [Candidate(96, 0.7), Candidate(80, 0.86), Candidate(64, 0.99)]
    assert best(found, lambda _: math.nan, 0.0).imgsz == 80
    assert best(found, lambda each: math.nan if each.imgsz == 80 else each.left, 0.0).imgsz == 64


def test_either_half_of_few_images_judges_by_turns_of_their_names() -> None:
    files = [Path(f"{number}.jpg") for number in range(8)]
    first, second = folds(files[::-1], files)
    assert first.held == second.fitted == files[::2]
    assert second.held == first.fitted == files[1::2]
    with pytest.raises(InputError, match="7 train images are too few to choose a size by: give 8 or leave size out"):
        folds(files[:7], files)


def test_savings_are_what_one_more_would_save() -> None:
    """Where no tensor holds a group twice the sum is exact, whatever is gone already."""
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 5, 1), nn.Conv2d(5, 2, 1))
    graph = trace(model.eval(), torch.zeros(1, 3, 8, 8))
    for uses, gone in itertools.product((None, {"0": 36.0, "3": 30.0}), ([], [0, 7], [1, 2, 3, 8])):
        price = Price(model, graph, uses, in_all=1e4)
        removed = np.isin(np.arange(graph.group_count), gone)
        savings = price.savings(removed)
        for group in np.flatnonzero(~graph.pinned):
            more = removed.copy()
            more[group] = True
            assert savings[group] == pytest.approx(price.total(removed) - price.total(more))
        assert price.whole == pytest.approx(max(1e4, parameters(model)))
