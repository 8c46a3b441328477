"""Costs that are kept up while channels leave are those that are worked out anew."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from seqprune.budget.columns import GONE, WELL_POSED, Columns, Reader, Source
from seqprune.budget.importance import variances
from seqprune.budget.second_order import scaled_weight

EXACT = 0.9 / WELL_POSED  # the smallest source is inverted in double precision with it
"""Of ridges."""


def anew(source: Source, gone: list[int], silent: list[int], group: int, ridge: float) -> float:
    """By regression, of the outputs that are left: how much more is lost without ``group`` than without ``gone``."""
    kernel = len(source.products) // len(source.groups)
    covariance = source.products + ridge * source.products.diagonal().mean() * torch.eye(len(source.products))
    weight = torch.cat([r.weight[torch.from_numpy(~np.isin(r.groups, silent))] for r in source.readers]).double()

    def lost(without: list[int]) -> float:
        stay = np.repeat(~np.isin(source.groups, without), kernel)
        left = covariance[stay][:, stay]
        fitted = torch.linalg.solve(left, covariance[stay] @ weight.T)
        return float(((weight @ covariance) * weight).sum() - (fitted * (left @ fitted)).sum())

    return lost([*gone, group]) - lost(gone)


@st.composite
def sources(draw: st.DrawFn) -> Source:
    """Of 1 to 9 columns a channel; some groups twice, as a concatenation of a map with itself has them."""
    seed, kernel = draw(st.integers(0, 2**16)), draw(st.sampled_from([1, 2, 9]))
    groups = np.array(draw(st.lists(st.integers(0, 7), min_size=4, max_size=10)))
    random = np.random.default_rng(seed)
    x = random.normal(0, 1, (200, len(groups) * kernel)) @ random.normal(0, 1, 2 * (len(groups) * kernel,))
    readers = [
        Reader(torch.from_numpy(random.normal(0, 1, (rows, x.shape[1]))), random.integers(0, 8, rows))
        for rows in (3, 5)
    ]
    return Source(torch.from_numpy(x.T @ x / len(x)), groups, tuple(readers))


@pytest.mark.parametrize(("ridge", "rel", "share"), [(EXACT, 1e-6, 1e-9), (3e-3, 1e-2, 1e-6), (0.3, 1e-4, 1e-7)])
@settings(max_examples=40)
@given(source=sources(), order=st.permutations(range(8)), outputs_too=st.lists(st.booleans(), min_size=8, max_size=8))
def test_costs_are_those_of_a_regression_whatever_left_before(
    source: Source, order: list[int], outputs_too: list[bool], ridge: float, rel: float, share: float
) -> None:
    state = Columns(source, np.ones(8, bool), np.zeros(8, bool), ridge)
    gone: list[int] = []
    silent: list[int] = []
    for group, both in zip(order, outputs_too, strict=True):
        if both:
            state.remove_outputs(group)
            silent.append(group)
        if group in state.columns and len(state.columns) > 1:
            state.remove_inputs(group)
            state.rescore()
            gone.append(group)
        costs = dict(zip(*map(np.concatenate, zip(*state.costs(), strict=True)), strict=True))
        scale = float(source.products.trace()) * 8
        for other in state.columns:
            expected = anew(source, gone, silent, other, ridge)
            assert costs[other] == pytest.approx(expected, rel=rel, abs=share * scale)


def test_what_is_gone_is_not_carried_along() -> None:
    """The inverse of a source kept its size to the end, and every step paid for the columns that had left."""
    random = np.random.default_rng(0)
    x = random.normal(0, 1, (100, 16))
    reader = Reader(torch.from_numpy(random.normal(0, 1, (4, 16))), np.array([97, 98, 98, 99]))
    source = Source(torch.from_numpy(x.T @ x), np.arange(16), (reader,))
    state = Columns(source, np.ones(100, bool), np.zeros(100, bool), 1)
    state.remove_outputs(98)
    for group in range(15):
        state.remove_inputs(group)
        state.rescore()
        assert len(state.inverse) <= (16 - group - 1) / (1 - GONE) + 1
    assert state.weight.shape[1] == 2


def test_an_output_that_leaves_takes_its_losses_along_to_the_bit() -> None:
    """Where nothing is left that reads a channel it costs nothing, not the rounding of what it once cost."""
    random = np.random.default_rng(0)
    x = random.normal(0, 1, (100, 6))
    reader = Reader(torch.from_numpy(random.normal(0, 1, (3, 6))), np.array([10, 11, 12]))
    source = Source(torch.from_numpy(x.T @ x), np.arange(6), (reader,))
    state = Columns(source, np.ones(13, bool), np.zeros(13, bool), 1)
    for group in (10, 11, 12):
        ((_, costs),) = state.costs()
        assert (costs > 0).all()
        state.remove_outputs(group)
    ((_, costs),) = state.costs()
    assert (costs == 0).all()


def test_outputs_that_were_gone_before_ask_for_nothing() -> None:
    random = np.random.default_rng(0)
    x, weight = random.normal(0, 1, (100, 6)), torch.from_numpy(random.normal(0, 1, (3, 6)))
    products, gone = torch.from_numpy(x.T @ x), np.arange(13) == 11

    def costs(reader: Reader) -> list[float]:
        ((_, found),) = Columns(Source(products, np.arange(6), (reader,)), np.ones(13, bool), gone, EXACT).costs()
        return list(found)

    left = Reader(weight[[0, 2]], np.array([10, 12]))
    assert costs(Reader(weight, np.array([10, 11, 12]))) == pytest.approx(costs(left))


@pytest.mark.parametrize("kernel", [1, 4])
def test_where_nothing_varies_nothing_is_lost(kernel: int) -> None:
    """A dead layer's maps are constant: their covariance has no inverse, and an error in what reads them no weight."""
    reader = Reader(torch.zeros(3, 6 * kernel), np.full(3, 99))
    source = Source(torch.zeros(6 * kernel, 6 * kernel), np.arange(6), (reader,))
    state = Columns(source, np.ones(100, bool), np.zeros(100, bool), EXACT)
    for group in range(5):
        ((_, costs),) = state.costs()
        assert (costs == 0).all()
        state.remove_inputs(group)
        state.rescore()


@pytest.mark.parametrize("unit", [0.0, 1e-6, 1e6])
def test_outputs_vary_by_what_they_matter_whatever_the_unit_of_what_is_read(unit: float) -> None:
    model = nn.Sequential(nn.Conv2d(4, 3, 1))
    covariance = unit * torch.eye(4, dtype=torch.float64)
    weight = scaled_weight(model, "0", torch.ones(3, 1), variances(model, "0", covariance), 5.0)
    assert float(((weight @ covariance) * weight).sum()) == pytest.approx(5.0 if unit else 0.0)
    assert unit or (weight == 0).all()


def test_single_precision_inverts_to_a_hundredth_where_it_is_taken() -> None:
    """An inverse is off by the condition number times half of the distance of two numbers from each other."""
    assert WELL_POSED * torch.finfo(torch.float32).eps / 2 <= 0.01
