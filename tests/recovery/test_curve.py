"""The fit through an activation: exact against its normal equations, and never worse where it counts."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from seqprune.observe.patches import SecondMoments
from seqprune.observe.unit import Curve
from seqprune.repair import curve
from seqprune.repair.curve import Samples, _secant, _weighted, bend
from seqprune.repair.solve import solve

SCALE = torch.tensor([0.5, 1.0, 2.0])
KEEP = np.array([True, False, True, True, False, True, True, True])


def problem(seed: int = 0, count: int = 4000) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Inputs as activations give them, weights, and what they make: three outputs around the bend of an activation."""
    draw = torch.Generator().manual_seed(seed)
    u = (torch.randn(count, 8, generator=draw) @ torch.randn(8, 8, generator=draw)).relu()
    weight = torch.randn(3, 8, generator=draw).double()
    return u, weight, (u.double() @ weight.T - 4).float()


def both(activation: nn.Module, count: int = 4000) -> tuple[torch.Tensor, ...]:
    u, weight, y = problem(count=count)
    moments, samples = SecondMoments(), Samples(Curve(SCALE, torch.full((3,), 0.5), activation), 1)
    moments.update(u[None], y[None])
    samples.add(u, y, None)
    linear = solve(weight, moments, KEEP, 1e-3)
    return u, y, *linear, *bend(weight, *linear, moments, samples, KEEP, 1e-3)


def error(activation: nn.Module, u: torch.Tensor, y: torch.Tensor, rows: torch.Tensor, shift: torch.Tensor) -> float:
    kept = torch.from_numpy(KEEP)
    z = u[:, kept].double() @ rows[:, kept].T + shift
    return float((activation(SCALE * z + 0.5) - activation(SCALE * y.double() + 0.5)).square().mean())


@pytest.mark.parametrize("activation", [nn.SiLU(), nn.ReLU(), nn.Hardswish()])
def test_what_comes_out_of_the_activation_is_closer_than_after_the_linear_fit(activation: nn.Module) -> None:
    u, y, rows, shift, bent_rows, bent_shift = both(activation)
    assert error(activation, u, y, bent_rows, bent_shift) < 0.95 * error(activation, u, y, rows, shift)
    assert torch.equal(bent_rows[:, ~KEEP], rows[:, ~KEEP])  # removed inputs are nobody's


@pytest.mark.parametrize("activation", [nn.SiLU(), nn.ReLU(), nn.Hardswish()])
def test_what_comes_out_is_nearly_as_close_as_weights_can_bring_it(activation: nn.Module) -> None:
    """Two rounds come within a twentieth of what a minimiser finds from there."""
    u, y, _, _, rows, shift = both(activation)
    found, end = rows.clone().requires_grad_(), shift.clone().requires_grad_()
    minimiser = torch.optim.LBFGS([found, end], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        minimiser.zero_grad()
        z = u[:, torch.from_numpy(KEEP)].double() @ found[:, torch.from_numpy(KEEP)].T + end
        away = (activation(SCALE * z + 0.5) - activation(SCALE * y.double() + 0.5)).square().mean()
        away.backward()  # type: ignore[no-untyped-call]
        return away

    minimiser.step(loss)  # type: ignore[no-untyped-call]
    assert error(activation, u, y, rows, shift) < 1.05 * error(activation, u, y, found.detach(), end.detach())


def test_outputs_that_were_removed_keep_the_linear_fit_and_the_others_theirs() -> None:
    u, y, rows, shift, bent_rows, bent_shift = both(nn.SiLU())
    _, weight, _ = problem()
    moments, samples = SecondMoments(), Samples(Curve(SCALE, torch.full((3,), 0.5), nn.SiLU()), 1)
    moments.update(u[None], y[None])
    samples.add(u, y, None)
    live = np.array([True, False, True])
    some_rows, some_shift = bend(weight, rows, shift, moments, samples, KEEP, 1e-3, live)
    assert torch.equal(some_rows[1], rows[1])
    assert torch.equal(some_shift[1], shift[1])
    torch.testing.assert_close(some_rows[live], bent_rows[live], rtol=0.05, atol=0.05)
    torch.testing.assert_close(some_shift[live], bent_shift[live], rtol=0.05, atol=0.05)


def test_an_activation_that_changes_nothing_leaves_the_linear_fit() -> None:
    _, _, rows, shift, bent_rows, bent_shift = both(nn.LeakyReLU(1.0))
    torch.testing.assert_close(bent_rows, rows, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(bent_shift, shift, rtol=1e-3, atol=1e-3)


def test_fewer_than_two_samples_a_weight_leave_the_linear_fit() -> None:
    _, _, rows, shift, bent_rows, bent_shift = both(nn.SiLU(), count=11)
    assert torch.equal(bent_rows, rows)
    assert torch.equal(bent_shift, shift)
    _, _, rows, _, bent_rows, _ = both(nn.SiLU(), count=12)
    assert not torch.equal(bent_rows, rows)


def test_the_steps_solve_the_weighted_normal_equations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curve, "STEPS", 40)
    monkeypatch.setattr(curve, "SETTLED", 0.0)
    u, missing, pull, counts, penalty = weighed()
    even = torch.linalg.cholesky(u.T @ u / 300 + penalty * torch.eye(5).double())
    rows, shift, reached = _weighted(u, missing, counts, penalty, pull, even)
    for number, expected in enumerate(solved(u, missing, counts, penalty, pull)):
        torch.testing.assert_close(torch.cat([rows[number], shift[number : number + 1]]), expected)
    torch.testing.assert_close(reached, u @ rows.T + shift)


def stepped(monkeypatch: pytest.MonkeyPatch, steps: int, settled: float, few: int = 1, times: int = 1) -> torch.Tensor:
    """Weights and offsets ``[outputs, 6]`` after so many steps from samples that are there so many times."""
    monkeypatch.setattr(curve, "STEPS", steps)
    monkeypatch.setattr(curve, "SETTLED", settled)
    u, missing, pull, counts, penalty = weighed()
    u, missing, counts = (each.repeat_interleave(times, 0) for each in (u, missing, counts))
    even = torch.linalg.cholesky(u.T @ u / len(u) + penalty * torch.eye(5).double())
    rows, shift, _ = _weighted(u, missing, counts, penalty, pull, even, few)
    return torch.cat([rows, shift[:, None]], 1)


def test_conjugate_directions_are_as_many_as_there_are_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    u, missing, pull, counts, penalty = weighed()
    found = stepped(monkeypatch, 6, 0.0)
    torch.testing.assert_close(found, torch.stack(solved(u, missing, counts, penalty, pull)), rtol=1e-9, atol=1e-9)


def test_steps_end_where_the_last_gained_a_small_share(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two, three = (stepped(monkeypatch, steps, 0.0) for steps in (1, 2, 3))
    assert torch.equal(stepped(monkeypatch, 40, 1.01), one)  # the first gained all that there is
    assert torch.equal(stepped(monkeypatch, 40, 0.99), two)
    assert not torch.equal(two, three)


def test_steps_come_within_a_hundredth_of_what_there_is_to_gain() -> None:
    """Of the loss that no steps leave; and they go on where the first gained most of it."""
    u, missing, pull, counts, penalty = weighed()
    counts = counts**8  # few samples count
    even = torch.linalg.cholesky(u.T @ u / 300 + penalty * torch.eye(5).double())

    def loss(rows: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        away = (counts * (missing - u @ rows.T - shift).square()).sum(0)
        return away + penalty * counts.sum(0) * (pull - rows).square().sum(1)

    best = torch.stack(solved(u, missing, counts, penalty, pull))
    before, least = loss(0 * pull, 0 * pull[:, 0]), loss(best[:, :5], best[:, 5])
    rows, shift, _ = _weighted(u, missing, counts, penalty, pull, even)
    assert (loss(rows, shift) - least <= 0.01 * (before - least)).all()


def test_some_samples_that_are_like_all_say_what_all_do(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = stepped(monkeypatch, 2, 0.0, times=3)
    torch.testing.assert_close(stepped(monkeypatch, 2, 0.0, few=3, times=3), wanted)


def test_without_rounds_the_linear_fit_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curve, "ROUNDS", 0)
    _, _, rows, shift, bent_rows, bent_shift = both(nn.SiLU())
    torch.testing.assert_close(bent_rows, rows, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(bent_shift, shift, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("stay", [np.zeros(8, bool), None])
def test_where_nothing_is_read_or_nothing_varies_the_linear_fit_stays(stay: np.ndarray | None) -> None:
    u, weight, y = problem()
    moments, samples = SecondMoments(), Samples(Curve(SCALE, torch.full((3,), 0.5), nn.SiLU()), 1)
    moments.update(0 * u[None] + 1, y[None])
    samples.add(u, y, None)
    rows, shift = bend(weight, weight, weight[:, 0], moments, samples, stay, 1e-3)
    assert torch.equal(rows, weight)
    assert torch.equal(shift, weight[:, 0])


def test_a_secant_joins_two_points_and_is_the_slope_where_they_are_one() -> None:
    relu = Curve(torch.ones(1), torch.zeros(1), nn.ReLU())
    now, aim = torch.tensor([-1.0, 0.5, 2.0, -0.002, 0.0]), torch.tensor([0.5, -1.0, 2.0, 0.002, 0.0009])
    torch.testing.assert_close(_secant(relu, now, aim), torch.tensor([1 / 3, 1 / 3, 1.0, 0.5, 1.0]))


def test_samples_without_weights_count_alike_in_batches_of_any_size() -> None:
    samples = Samples(Curve(torch.ones(3), torch.zeros(3), nn.SiLU()), 2)
    for count in (5, 7):
        samples.add(torch.zeros(count, 8), torch.zeros(count, 3), None)
    assert [weight.tolist() for weight in samples.weight] == [[1.0] * 5, [1.0] * 7]


def test_steps_by_some_of_the_samples_come_to_what_all_of_them_say() -> None:
    """The curvature is that of a third of them; the slope and the length of a step are asked of all."""
    u, missing, pull, counts, penalty = weighed()
    even = torch.linalg.cholesky(u.T @ u / 300 + penalty * torch.eye(5).double())
    rows, shift = torch.zeros_like(pull), torch.zeros_like(pull[:, 0])
    losses = []
    for _ in range(12):
        more, further, reached = _weighted(u, missing, counts, penalty, pull - rows, even, 3)
        rows, shift, missing = rows + more, shift + further, missing - reached
        tie = penalty * counts.sum(0)
        losses.append((counts * missing.square()).sum(0) + tie * (pull - rows).square().sum(1))
    assert all((after <= before * (1 + 1e-9)).all() for before, after in pairwise(losses))
    _, wanted, *_ = weighed()
    for number, expected in enumerate(solved(u, wanted, counts, penalty, pull)):
        torch.testing.assert_close(
            torch.cat([rows[number], shift[number : number + 1]]), expected, rtol=1e-3, atol=1e-4
        )


@pytest.mark.parametrize("few", [1, 3])
def test_weights_count_relative_to_each_other(few: int) -> None:
    u, missing, pull, counts, penalty = weighed()
    even = torch.linalg.cholesky(u.T @ u / 300 + penalty * torch.eye(5).double())
    found = [_weighted(u, missing, counts * by, penalty, pull, even, few) for by in (1.0, 1e-6)]
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def weighed() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, float]:
    draw = torch.Generator().manual_seed(1)
    u = torch.randn(300, 5, generator=draw).double()
    missing, pull = torch.randn(300, 2, generator=draw).double(), torch.randn(2, 5, generator=draw).double()
    return u, missing, pull, torch.rand(300, 2, generator=draw).double(), 0.1


def solved(
    u: torch.Tensor, missing: torch.Tensor, counts: torch.Tensor, penalty: float, pull: torch.Tensor
) -> list[torch.Tensor]:
    """Of each output the weights and the offset that its normal equations have."""
    wide, found = torch.cat([u, torch.ones(300, 1).double()], 1), []
    for number in range(2):
        each = counts[:, number]
        tie = penalty * each.sum() * torch.diag(torch.tensor([1.0] * 5 + [0.0])).double()
        right = wide.T @ (each * missing[:, number]) + tie @ torch.cat([pull[number], torch.zeros(1).double()])
        found.append(torch.linalg.solve(wide.T @ (each[:, None] * wide) + tie, right))
    return found


def test_steps_that_diverge_change_nothing() -> None:
    """Inputs that repeat each other and next to no ridge: float32 once gave weights that were not numbers."""
    draw = torch.Generator().manual_seed(2)
    u = torch.randn(300, 4, generator=draw).repeat(1, 2)
    missing, pull = 1e-6 * torch.randn(300, 2, generator=draw), torch.randn(2, 8, generator=draw)
    counts = torch.rand(300, 2, generator=draw) / 300
    for even in (1e5 * torch.eye(8), 1e-20 * torch.eye(8), torch.full((8, 8), torch.nan)):
        rows, shift, reached = _weighted(u, missing, counts, 0.0, pull, even)
        torch.testing.assert_close(reached, u @ rows.T + shift, rtol=1e-3, atol=1e-6)
        before = (counts * missing.square()).sum(0)
        assert ((counts * (missing - u @ rows.T - shift).square()).sum(0) <= before * (1 + 1e-6)).all()


def test_a_step_whose_length_is_no_number_is_not_made() -> None:
    """It gains something, and what it is divided by is too small for float32."""
    u = torch.tensor([[1.0], [-1.0]])
    found = _weighted(u, 1e-15 * u, torch.ones(2, 1), 0.0, torch.zeros(1, 1), torch.tensor([[200.0]]))
    assert not any(each.any() for each in found)


def test_samples_stay_as_many_with_more_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curve, "SAMPLES", 100)
    kept = []
    for batches in (2, 10):
        samples = Samples(Curve(torch.ones(3), torch.zeros(3), nn.SiLU()), batches)
        for _ in range(batches):
            samples.add(torch.randn(60, 8), torch.randn(60, 3), torch.ones(60))
        kept.append(sum(len(part) for part in samples.seen))
        assert kept[-1] == sum(len(part) for part in samples.wanted) == sum(len(part) for part in samples.weight)
    assert all(0 < count <= 100 for count in kept)
    alone = Samples(Curve(torch.ones(3), torch.zeros(3), nn.SiLU()), 1)
    alone.add(torch.randn(60, 8), torch.randn(60, 3), None)
    assert len(alone.seen[0]) == 60  # as there is room for all


@pytest.mark.parametrize(
    ("batches", "numbers", "kept"),
    [(1, 720, 60), (2, 720, 30), (9, 720, 10), (1, 240, 30), (1000, 720, 1), (0, 720, 60)],
)
def test_samples_are_an_even_share_of_every_batch_side_by_side(
    batches: int, numbers: int, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curve, "SAMPLES", 90)
    monkeypatch.setattr(curve, "NUMBERS", numbers)
    samples, number = Samples(Curve(torch.ones(3), torch.zeros(3), nn.SiLU()), batches), torch.arange(60.0)
    for _ in range(2):
        samples.add(number[:, None].expand(60, 8).double(), number[:, None].expand(60, 3).double(), number)
    for seen, wanted, weight in zip(samples.seen, samples.wanted, samples.weight, strict=True):
        assert torch.equal(seen, number[:: 60 // kept, None].expand(kept, 8))
        assert torch.equal(wanted, seen[:, :3])
        assert torch.equal(weight, seen[:, 0])


def test_samples_that_do_not_count_change_nothing() -> None:
    u, weight, y = problem()
    moments = SecondMoments()
    moments.update(u[None], y[None])
    linear = solve(weight, moments, KEEP, 1e-3)
    found = []
    for garbage in (0.0, 1e3):
        samples = Samples(Curve(SCALE, torch.full((3,), 0.5), nn.SiLU()), 2)
        samples.add(u[:2000], y[:2000], torch.full((2000,), 2.0))
        samples.add(u[2000:] + garbage, y[2000:] - garbage, torch.zeros(2000))
        found.append(bend(weight, *linear, moments, samples, KEEP, 1e-3))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(found[0][0], linear[0], rtol=1e-3)
