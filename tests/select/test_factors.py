"""Curves of loss over cost, the filters behind them, and one price for all layers."""

from __future__ import annotations

import pytest
import torch

from seqprune.budget.factor_curves import Curve, at_price, cheapest, curve, pair, saved
from seqprune.graph.factor import First

WAYS: tuple[First, ...] = ("column", "row")
OUTPUTS, INPUTS, K = 5, 4, 3


def drawn(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A weight, correlated patches ``[N, INPUTS · K · K]``, and what errors in each output matter."""
    random = torch.Generator().manual_seed(seed)
    weight = torch.randn(OUTPUTS, INPUTS, K, K, generator=random, dtype=torch.float64)
    mix = torch.randn(INPUTS * K * K, INPUTS * K * K, generator=random, dtype=torch.float64)
    patches = torch.randn(4000, INPUTS * K * K, generator=random, dtype=torch.float64) @ mix
    return weight, patches - patches.mean(0), torch.rand(OUTPUTS, generator=random, dtype=torch.float64) + 0.1


def curve_for(weight: torch.Tensor, patches: torch.Tensor, scale: torch.Tensor, first: First) -> Curve:
    return curve(weight, patches.T @ patches / len(patches), scale, first, 1.0, 0.1)


def error(weight: torch.Tensor, patches: torch.Tensor, scale: torch.Tensor, pair_: tuple[torch.Tensor, ...]) -> float:
    """Mean squared, of the weighted outputs, computed by convolving."""
    images = patches.reshape(-1, INPUTS, K, K)
    wanted = torch.nn.functional.conv2d(images, weight)
    found = torch.nn.functional.conv2d(torch.nn.functional.conv2d(images, pair_[0]), pair_[1])
    return float(((wanted - found).flatten(1) * scale).square().sum(1).mean())


def unrelated(first: First) -> torch.Tensor:
    """A covariance of patches whose columns (or rows) are alike and know nothing of each other."""
    mix = torch.randn(INPUTS * K, INPUTS * K, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    each = (mix @ mix.T).reshape(INPUTS, K, 1, INPUTS, K, 1) * torch.eye(K).reshape(1, 1, K, 1, 1, K)
    if first == "row":
        each = each.transpose(1, 2).transpose(4, 5)
    return each.reshape(INPUTS * K * K, INPUTS * K * K)


@pytest.mark.parametrize("first", WAYS)
def test_where_columns_are_unrelated_the_tail_of_the_spectrum_is_the_error(first: First) -> None:
    weight, _, scale = drawn()
    covariance = unrelated(first)
    way = curve(weight, covariance, scale, first, 1.0, 0.1)
    rows = weight.flatten(1) * scale[:, None]
    assert float(way.loss[0]) == pytest.approx(float(torch.trace(rows @ covariance @ rows.T)), rel=1e-3)
    assert way.filters.shape == (INPUTS * K, INPUTS * K)
    assert len(way.loss) == INPUTS * K + 1
    assert way.loss[-1] == 0
    for rank in (1, 4, 8, INPUTS * K):
        _, loss = pair(weight, covariance, scale, way, rank, steps=0)
        assert loss == pytest.approx(float(way.loss[rank]), rel=2e-3, abs=1e-3 * float(way.loss[0]))


def test_what_is_read_at_another_size_is_lost_at_that_size() -> None:
    weight, patches, scale = drawn()
    covariance = patches.T @ patches / len(patches)
    ways = [curve(weight, covariance * size, scale, "row", 1.0, 0.1) for size in (1.0, 1e-6)]
    torch.testing.assert_close(ways[1].loss, 1e-6 * ways[0].loss, rtol=1e-6, atol=0.0)
    losses = [pair(weight, covariance * size, scale, way, 3)[1] for way, size in zip(ways, (1.0, 1e-6), strict=True)]
    assert losses[1] == pytest.approx(1e-6 * losses[0], rel=1e-2)
    assert curve(weight[:2], covariance, scale[:2], "column", 1.0, 0.1).filters.shape == (2 * K, INPUTS * K)


def test_prices_are_sought_from_the_least_layer_to_the_greatest() -> None:
    """Layers whose losses lie twenty orders apart; and one of a single rank, which loses nothing at any price."""
    losses = torch.tensor([1.0, 0.6, 0.4]).double()
    curves = {
        name: [Curve("row", torch.eye(3), loss * losses, whole=4.0, each=1.0)]
        for name, loss in (("a", 1e-15), ("b", 1e-12), ("c", 1e5))
    }
    for name in curves:
        chosen = cheapest(curves, lambda each, name=name: name in each, 2)  # type: ignore[misc]
        assert chosen is not None
        assert max(chosen) == name
    single = Curve("row", torch.eye(3), torch.tensor([5.0, 0.0, 0.0]).double(), whole=4.0, each=1.0)
    assert cheapest({"a": [single]}, bool, 1) == {"a": (single, 1)}


@pytest.mark.parametrize("unit", [1e-9, 1e9])
def test_costs_in_other_units_choose_alike(unit: float) -> None:
    """Parameters are counted in millions, times in milliseconds."""
    loss = torch.tensor([9.0, 4.0, 2.0, 1.0, 0.0]).double()
    ways = [Curve("row", torch.eye(4), size * loss, whole=4.0 * unit, each=unit) for size in (1.0, 3.0)]
    chosen = cheapest({"a": ways[:1], "b": ways[1:]}, lambda each: saved(each) >= 1.5 * unit, 1)
    assert chosen is not None
    assert {name: rank for name, (_, rank) in chosen.items()} == {"a": 2}


@pytest.mark.parametrize("size", [1e-4, 1e4])
def test_a_pair_of_larger_weights_is_as_much_larger(size: float) -> None:
    weight, patches, scale = drawn()
    covariance = patches.T @ patches / len(patches)
    way = curve(weight, covariance, scale, "row", 1.0, 0.1)
    plain, sized = (pair(each, covariance, scale, way, 4)[1] for each in (weight, size * weight))
    assert sized / size**2 == pytest.approx(plain, rel=1e-3)


def test_more_steps_never_lose_more() -> None:
    for seed in range(6):
        weight, patches, scale = drawn(seed)
        covariance = patches.T @ patches / len(patches)
        way = curve(weight, covariance, scale, "row", 1.0, 0.1)
        losses = [pair(weight, covariance, scale, way, 3, steps)[1] for steps in (0, 1, 2, 4, 8, 15)]
        assert losses == sorted(losses, reverse=True)


def test_a_convolution_of_zeros_is_made_of_numbers() -> None:
    _, patches, scale = drawn()
    nothing, covariance = torch.zeros(OUTPUTS, INPUTS, K, K), patches.T @ patches / len(patches)
    (one, two), loss = pair(nothing, covariance, scale, curve(nothing, covariance, scale, "row", 1.0, 0.1), 2)
    assert one.isfinite().all()
    assert not two.any()
    assert loss == 0


@pytest.mark.parametrize("first", WAYS)
def test_the_loss_is_what_the_pair_loses_and_is_brought_down(first: First) -> None:
    weight, patches, scale = drawn()
    way = curve_for(weight, patches, scale, first)
    covariance = patches.T @ patches / len(patches)
    for rank in (2, 6, 10):
        begun, before = pair(weight, covariance, scale, way, rank, steps=0)
        found, loss = pair(weight, covariance, scale, way, rank)
        assert error(weight, patches, scale, begun) == pytest.approx(before, rel=1e-2)
        assert error(weight, patches, scale, found) == pytest.approx(loss, rel=1e-2)
        assert loss < 0.97 * before
        assert pair(weight, covariance, scale, way, rank, steps=1)[1] > loss
        assert loss < 1.2 * pair(weight, covariance, scale, way, rank, steps=100)[1] + 0.01 * float(way.loss[0])
    _, none = pair(weight, covariance, scale, way, min(OUTPUTS, INPUTS) * K)
    assert none < 1e-3 * float(way.loss[0])


def test_data_matter() -> None:
    """Filters by the weights alone ignore that some of what they read never varies."""
    weight, _, scale = drawn()
    covariance = torch.eye(INPUTS * K * K, dtype=torch.float64)
    covariance[: INPUTS * K * K // 2] *= 1e-6
    blind = curve(weight, torch.eye(INPUTS * K * K, dtype=torch.float64), scale, "column", 1.0, 0.1)
    seeing = curve(weight, covariance, scale, "column", 1.0, 0.1)
    for rank in range(1, 7):
        losses = [pair(weight, covariance, scale, way, rank, 0)[1] for way in (seeing, blind)]
        assert losses[0] < losses[1]


def test_what_varies_nowhere_is_still_made() -> None:
    weight, _, scale = drawn()
    nothing = torch.zeros(INPUTS * K * K, INPUTS * K * K, dtype=torch.float64)
    way = curve(weight, nothing, scale, "row", 1.0, 0.1)
    (one, two), loss = pair(weight, nothing, scale, way, 3)
    assert one.isfinite().all()
    assert two.isfinite().all()
    assert loss >= 0


def test_the_best_of_a_curve_is_the_best_of_all_its_points() -> None:
    loss = torch.tensor([10.0, 4.0, 2.0, 1.0, 0.5, 0.0])
    way = Curve("column", torch.eye(5), loss, whole=4.0, each=1.0)
    for price in (0.0, 0.2, 0.6, 1.5, 3.0, 20.0):
        points = [(price * way.whole, 0)] + [(float(loss[r]) + price * r, r) for r in range(1, 4)]
        least = min(points)[0]
        rank, found = way.best(price)
        assert found == pytest.approx(least)
        assert (found, rank) in [(pytest.approx(p), r) for p, r in points]
    assert way.best(20.0, step=2)[0] == 2
    assert way.best(20.0, step=4)[0] == 0  # as dear as the layer itself


def test_a_pair_as_dear_as_its_layer_is_not_made_and_of_both_ways_the_better_is() -> None:
    few, many = (
        Curve(first, torch.eye(4), torch.tensor(loss).double(), whole=4.0, each=1.0)
        for first, loss in (("column", [9.0, 3.0, 2.9, 2.8, 0.0]), ("row", [9.0, 8.0, 0.5, 0.4, 0.0]))
    )
    assert few.best(1.0) == (0, 4.0)
    assert few.best(1.01) == (1, pytest.approx(4.01))
    for ways in ([few, many], [many, few]):
        assert at_price({"a": ways}, 1.1, 1) == {"a": (many, 2)}
    nothing = Curve("row", torch.eye(4), torch.zeros(5).double(), whole=4.0, each=1.0)
    assert cheapest({"a": [many], "b": [nothing]}, lambda each: "b" in each, 1) == {"b": (nothing, 1)}


def test_more_is_saved_at_a_higher_price_and_the_least_that_is_enough_is_taken() -> None:
    curves = {str(seed): [curve_for(*drawn(seed), first) for first in WAYS] for seed in range(4)}
    savings = [saved(at_price(curves, price, 1)) for price in (1e-3, 1.0, 10.0, 100.0, 1e5)]
    assert savings == sorted(savings)
    assert savings[0] < savings[-1]
    for wanted in (0.3, 1.0, 2.0):
        chosen = cheapest(curves, lambda each, wanted=wanted: saved(each) >= wanted, 1)  # type: ignore[misc]
        assert chosen is not None
        assert wanted <= saved(chosen) <= wanted + 1.0
    assert cheapest(curves, lambda each: saved(each) >= 5.0, 1) is None
    most = cheapest(curves, lambda each: saved(each) >= 5.0, 1, nearest=True)
    assert most is not None
    assert saved(most) == max(saved(at_price(curves, price, 1)) for price in (1e-3, 1.0, 1e3, 1e9))
    assert cheapest({}, lambda _: False, 1, nearest=True) == {}


def test_a_layer_with_fewer_channels_than_a_step_stays_as_it_is() -> None:
    """Steps of 16, which time is counted in, ended in an error of torch on a layer that reads three colours."""
    way = Curve("column", torch.eye(9), torch.arange(9.0, -1, -1), whole=4.0, each=0.0, base=1.0)
    assert way.best(1.0, 16) == (0, 4.0)
    assert way.best(1.0, 4) == (8, 2.0)  # whatever is between costs the same
