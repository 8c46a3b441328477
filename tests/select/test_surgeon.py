"""The second-order loss is the error of the refitted layer, and the greedy order takes the least of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from seqprune.budget.columns import MOST_FITTED, Reader, Source, effective_parameters, unseen
from seqprune.budget.surgeon import removal_order
from seqprune.graph.channels import Balance

CHANNELS = 6


def source(
    seed: int = 0, kernel: int = 1, groups: np.ndarray | None = None, rows: int = 4
) -> tuple[Source, np.ndarray]:
    draw = np.random.default_rng(seed)
    size = CHANNELS * kernel
    u = draw.normal(0, 1, (400, size)) @ draw.normal(0, 1, (size, size))
    u -= u.mean(0)
    weight = draw.normal(0, 1, (rows, size))
    groups = np.arange(CHANNELS) if groups is None else groups
    pinned = np.full(rows, CHANNELS)
    products = torch.from_numpy(u.T @ u / len(u))
    return Source(products, groups, (Reader(torch.from_numpy(weight), pinned),)), u


def order_of(sources: list[Source], count: int, **how: object) -> list[tuple[tuple[int, ...], float]]:
    free = np.arange(CHANNELS + 1) < int(sources[0].groups.max()) + 1
    options = {"balances": (), "layers": (), "floor": 0.0, "ridge": 1e-9} | how
    found = removal_order(
        sources,
        free,
        options.pop("balances"),  # type: ignore[arg-type]
        options.pop("layers"),  # type: ignore[arg-type]
        lambda gone: np.ones(len(gone)),
        lambda gone: int(gone.sum()) >= count,
        **options,  # type: ignore[arg-type]
    )
    return [(step.groups, step.loss) for step in found]


def refitted_error(u: np.ndarray, weight: np.ndarray, stay: np.ndarray) -> float:
    """By ordinary regression: the mean squared error of the best weights on the inputs that stay."""
    y = u @ weight.T
    return float(np.square(y - u[:, stay] @ np.linalg.lstsq(u[:, stay], y, rcond=None)[0]).sum(1).mean())


@pytest.mark.parametrize("kernel", [1, 3])
def test_the_losses_add_up_to_the_error_of_the_best_refit(kernel: int) -> None:
    src, u = source(kernel=kernel)
    weight = src.readers[0].weight.numpy()
    total, gone = 0.0, []
    for (group,), loss in order_of([src], 3):
        total += loss
        gone.append(group)
        stay = np.repeat(~np.isin(np.arange(CHANNELS), gone), kernel)
        assert total == pytest.approx(refitted_error(u, weight, stay), rel=1e-4)


def test_the_first_to_leave_is_the_one_that_costs_least() -> None:
    src, u = source(seed=3)
    weight = src.readers[0].weight.numpy()
    errors = [refitted_error(u, weight, np.arange(CHANNELS) != channel) for channel in range(CHANNELS)]
    assert order_of([src], 1)[0][0] == (int(np.argmin(errors)),)


def test_beside_a_channel_that_has_to_stay_the_others_cost_what_they_do() -> None:
    src, u = source(seed=4)
    free = np.isin(np.arange(CHANNELS + 1), range(1, CHANNELS))
    (first,) = removal_order(
        *([src], free, (), (), lambda gone: np.ones(len(gone)), lambda gone: bool(gone.any())), floor=0, ridge=1e-9
    )
    stay = ~np.isin(np.arange(CHANNELS), first.groups)
    assert first.loss == pytest.approx(refitted_error(u, src.readers[0].weight.numpy(), stay), rel=1e-4)


def test_a_channel_that_another_one_repeats_leaves_first_and_for_nothing() -> None:
    draw = np.random.default_rng(1)
    u = draw.normal(0, 1, (400, CHANNELS))
    u[:, 4] = 2 * u[:, 1]
    src = Source(
        torch.from_numpy(u.T @ u / 400),
        np.arange(CHANNELS),
        (Reader(torch.from_numpy(draw.normal(0, 1, (3, CHANNELS))), np.full(3, CHANNELS)),),
    )
    (group,), loss = order_of([src], 1)[0]
    assert group in (1, 4)
    assert loss < 1e-6


def test_a_group_that_is_read_twice_is_charged_for_both_columns() -> None:
    src, u = source(seed=5, groups=np.array([0, 1, 2, 0, 1, 2]))
    weight = src.readers[0].weight.numpy()
    for (group,), loss in order_of([src], 1, layers=()):
        stay = ~np.isin(np.arange(CHANNELS), [group, group + 3])
        assert loss == pytest.approx(refitted_error(u, weight, stay), rel=1e-4)


def test_outputs_that_are_gone_cost_nothing_any_more() -> None:
    """The second layer's outputs 0 to 5 are the first source's groups; once one leaves, its row asks for nothing."""
    first, _ = source(seed=7)
    second, _ = source(seed=8, groups=np.full(CHANNELS, CHANNELS), rows=CHANNELS)
    rows = Reader(second.readers[0].weight, np.arange(CHANNELS))
    order = order_of([first, Source(second.products, np.full(CHANNELS, CHANNELS), (rows,))], 3)
    assert [g for g, _ in order] == [g for g, _ in order_of([first], 3)]


def test_both_halves_lose_equally_many_and_floors_hold() -> None:
    src, _ = source(seed=9)
    halves = Balance((np.array([0, 1, 2]), np.array([3, 4, 5])), "halves")
    order = order_of([src], 99, balances=(halves,), layers=(np.arange(CHANNELS),), floor=0.3)
    for groups, _ in order:
        assert len(groups) == 2
        assert len({group // 3 for group in groups}) == 2
    assert len(order) == 2  # 2 of 6 stay, no less than 0.3


def test_what_is_gone_already_is_not_counted_on() -> None:
    src, u = source(seed=11)
    weight = src.readers[0].weight.numpy()
    removed = np.arange(CHANNELS + 1) == 2
    (group,), loss = order_of([src], 2, removed=removed)[0]
    without = refitted_error(u, weight, ~np.isin(np.arange(CHANNELS), [2]))
    both = refitted_error(u, weight, ~np.isin(np.arange(CHANNELS), [2, group]))
    # The weights of the columns that stay are not yet refitted to the loss of the first.
    assert loss <= both + without
    assert group != 2


def test_effective_parameters_by_hand() -> None:
    """Variances 4, 2 and 0 have the mean 2; half of it as penalty leaves 4/5 and 2/3."""
    assert effective_parameters(torch.diag(torch.tensor([5.0, 3.0, 1.0])).inverse(), 1) == pytest.approx(4 / 5 + 2 / 3)
    assert effective_parameters(torch.eye(3), 1) == 0


@pytest.mark.parametrize("ridge", [1e-3, 0.1, 1.0])
def test_effective_parameters_are_the_trace_of_what_maps_targets_to_fits(ridge: float) -> None:
    x = torch.randn(50, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    covariance = x.T @ x / 50
    penalty = ridge * float(covariance.diagonal().mean())
    one = torch.eye(12, dtype=torch.float64)
    smoother = x @ torch.linalg.solve(x.T @ x + 50 * penalty * one, x.T)
    inverse = torch.linalg.inv(covariance + penalty * one)
    assert effective_parameters(inverse, penalty) == pytest.approx(float(smoother.trace()))


def test_a_fit_is_worse_elsewhere_by_as_much_as_is_said() -> None:
    """Least squares with 30 parameters on 90 samples, against the true errors of many such fits."""
    random = torch.Generator().manual_seed(0)
    x = torch.randn(400, 90, 30, generator=random, dtype=torch.float64)
    y, other = torch.randn(2, 400, 90, 1, generator=random, dtype=torch.float64)
    found = x @ torch.linalg.lstsq(x, y).solution
    seen, elsewhere = (y - found).square().mean(), (other - found).square().mean()
    assert float(elsewhere / seen) == pytest.approx(unseen(30, 90), rel=0.03) == 2


def test_more_parameters_than_samples_are_bounded() -> None:
    assert unseen(0, 10) == 1
    assert unseen(20, 10) == unseen(1e9, 10) == pytest.approx((1 + MOST_FITTED) / (1 - MOST_FITTED))


def test_losses_are_those_on_samples_that_the_fit_has_not_seen() -> None:
    """Without a ridge to speak of, six inputs are six parameters: of 18 samples (18 + 6) / (18 − 6) times the loss."""
    whole, _ = source()
    few = replace(whole, readers=(replace(whole.readers[0], samples=18),))
    plain, scaled = order_of([whole], 3), order_of([few], 3)
    assert [groups for groups, _ in scaled] == [groups for groups, _ in plain]
    assert [loss for _, loss in scaled] == pytest.approx([2 * loss for _, loss in plain], rel=1e-6)
