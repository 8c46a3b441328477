"""On a GPU: what the stages of preset ``accurate`` find there is what they find on the CPU, up to rounding.

Skipped without one. ``SEQPRUNE_GPU_TESTS=cpu`` runs them on the CPU, so that they are known to run.
"""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from detectors import Detector, Images
from torch import nn

from seqprune import compact, mask, trace, verify
from seqprune.budget.columns import Columns, Reader, Source
from seqprune.budget.price import Price
from seqprune.budget.second_order import choose_globally
from seqprune.budget.spread import Budget
from seqprune.observe.inputs import Inputs
from seqprune.observe.patches import Sampler
from seqprune.observe.reading import reading_of
from seqprune.observe.relevance import Relevance, relevance_of
from seqprune.observe.sources import second_moments
from seqprune.observe.stages import stages_of
from seqprune.plan import PrunePlan
from seqprune.repair.refit import refit

WHERE = os.environ.get("SEQPRUNE_GPU_TESTS", "cuda")
EXAMPLE = torch.zeros(1, 3, 32, 32)
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(WHERE == "cuda" and not torch.cuda.is_available(), reason="no CUDA device was found"),
]


def probe(model: nn.Module, inputs: Inputs, random: torch.Generator) -> torch.Tensor:
    found = model(inputs)[0]
    return (found * torch.randn(found.shape, generator=random).to(found.device)).sum()


def weighed(device: str) -> Relevance:
    model = Detector().to(device)
    names = reading_of(model, next(iter(Images()))).names
    return relevance_of(model, names, Images(), probe)


def test_errors_weigh_what_they_weigh_on_the_cpu() -> None:
    here, there = weighed("cpu"), weighed(WHERE)
    assert here.curvature.keys() == there.curvature.keys() != set()
    for name, wanted in here.curvature.items():
        assert there.curvature[name].cpu() == pytest.approx(wanted, rel=1e-2)


def test_second_moments_are_those_of_the_cpu() -> None:
    found = {}
    for device in ("cpu", WHERE):
        model = Detector().to(device)
        names = reading_of(model, next(iter(Images()))).names
        found[device] = second_moments(model, names, Images(), Sampler())[0]
    for name, wanted in found["cpu"].items():
        seen = found[WHERE][name].products.cpu()
        assert float((seen - wanted.products).norm() / wanted.products.norm()) < 1e-2  # TF32 keeps three digits


def test_costs_are_those_of_the_cpu_while_channels_leave() -> None:
    random = np.random.default_rng(0)
    x = random.normal(0, 1, (200, 12 * 9))
    products = torch.from_numpy(x.T @ x / len(x))
    reader = Reader(torch.from_numpy(random.normal(0, 1, (5, 12 * 9))), np.array([0, 1, 20, 20, 20]))
    states = [
        Columns(Source(products.to(d), np.arange(12), (reader,)), np.ones(21, bool), np.zeros(21, bool), 1e-2)
        for d in ("cpu", WHERE)
    ]
    for group in range(8):
        for state in states:
            state.remove_outputs(group)
            state.remove_inputs(group)
            state.rescore()
        (groups, wanted), (same, found) = (next(iter(state.costs())) for state in states)
        assert groups.tolist() == same.tolist()
        assert found == pytest.approx(wanted, rel=1e-9, abs=1e-12)


def test_the_whole_of_choice_and_fit_runs_and_is_exact() -> None:
    model, images = Detector().to(WHERE), Images()
    graph = trace(Detector(), EXAMPLE)
    reading = reading_of(model, next(iter(images)))
    relevance = weighed(WHERE)
    budget = Budget(0.7, round_to=1)
    removed = choose_globally(model, graph, images, Price(model, graph), budget, relevance=relevance, reading=reading)
    plan = PrunePlan.from_removed(graph, removed)
    masked = mask(model, plan, graph)
    stages = stages_of(model, EXAMPLE.to(WHERE))
    assert refit(model, masked, graph, removed, images, stages, relevance=relevance, reading=reading)
    masked = masked.cpu()
    assert verify(masked, compact(masked, plan, graph), EXAMPLE + 0.5).max_rel <= 1e-4
