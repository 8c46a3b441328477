"""Layers whose errors reach what is detected count for more; rows are scaled as what follows scales them."""

from __future__ import annotations

import pytest
import torch
from detectors import Detector, Images

from seqprune.budgeted import scaled_weight
from seqprune.importance import MOST_FITTED, effective_parameters, importance_of_layers, unseen
from seqprune.observe.patches import Drawn, Sampler
from seqprune.observe.relevance import Relevance, relevance_of
from seqprune.observe.sources import second_moments

NAMES = ["model.1.conv", "model.3.conv", "model.4.cv2.conv", "model.5.0"]


def covariances(model: Detector) -> dict[str, torch.Tensor]:
    moments, leader = second_moments(model, NAMES, Images(), Sampler())
    return {name: moments[leader[name]].products[0] / moments[leader[name]].count for name in NAMES}


def test_the_cost_by_hand() -> None:
    """Variances 1 and 3 at curvatures 2 and 1: a cost of 5, a fifth of it where the curvature is a fifth."""
    model = torch.nn.ModuleDict({name: torch.nn.Conv2d(2, 2, 1, bias=False) for name in "abc"})
    for conv in model.values():
        conv.weight.data = torch.eye(2)[:, :, None, None]
    covariance = torch.diag(torch.tensor([1.0, 3.0]).double())
    curvature = {"a": torch.tensor([2.0, 1.0]).double()}
    curvature["b"], curvature["c"] = curvature["a"] / 5, curvature["a"] * 3
    found = importance_of_layers(model, dict.fromkeys("abc", covariance), curvature, damping=1)
    assert found == pytest.approx({"a": 1, "b": 0.2, "c": 3})
    found = importance_of_layers(model, dict.fromkeys("abc", covariance), curvature, damping=0.5)
    assert found == pytest.approx({"a": 1, "b": 0.2**0.5, "c": 3**0.5})


def test_what_was_not_asked_about_is_like_the_layer_in_the_middle() -> None:
    model = Detector()
    assert importance_of_layers(model, covariances(model), {}) == dict.fromkeys(NAMES, 1.0)
    one = {"model.1.conv": torch.ones(16).double(), "model.3.conv": torch.zeros(24).double()}
    assert importance_of_layers(model, covariances(model), one) == dict.fromkeys(NAMES, 1.0)


def test_what_does_not_reach_the_output_has_no_curvature() -> None:
    model = Detector()
    with torch.no_grad():
        model.get_submodule("model.4.cv2.bn").weight.zero_()  # nothing of it, or before it, reaches the output
    found = relevance_of(model, NAMES, Images(), lambda m, x, _random: m(x).square().sum())
    assert [float(found.curvature[name].sum()) for name in NAMES[:3]] == [0, 0, 0]
    assert float(found.curvature["model.5.0"].sum()) > 0


@pytest.mark.parametrize("slope", [None, torch.linspace(0.1, 1, 24).double()])
def test_rows_have_the_total_variance_they_are_given(slope: torch.Tensor | None) -> None:
    model = Detector()
    covariance = covariances(model)["model.3.conv"]
    weight = scaled_weight(model, "model.3.conv", covariance, 2.5, slope)
    assert float(((weight @ covariance) * weight).sum()) == pytest.approx(2.5)
    if slope is not None:  # flat outputs weigh less than without
        plain = scaled_weight(model, "model.3.conv", covariance, 2.5)
        ratios = weight.norm(dim=1) / plain.norm(dim=1) / slope.sqrt()
        assert torch.allclose(ratios, ratios[0].expand(24))


def test_effective_parameters_by_hand() -> None:
    """Variances 4, 2 and 0 have the mean 2; half of it as penalty leaves 4/5 and 2/3."""
    covariance = torch.diag(torch.tensor([4.0, 2.0, 0.0]))
    assert effective_parameters(covariance, 0.5) == pytest.approx(4 / 5 + 2 / 3)
    assert effective_parameters(torch.zeros(3, 3), 0.5) == 0


@pytest.mark.parametrize("ridge", [1e-3, 0.1, 1.0])
def test_effective_parameters_are_the_trace_of_what_maps_targets_to_fits(ridge: float) -> None:
    x = torch.randn(50, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    covariance = x.T @ x / 50
    penalty = ridge * covariance.diagonal().mean()
    smoother = x @ torch.linalg.solve(x.T @ x + 50 * penalty * torch.eye(12, dtype=torch.float64), x.T)
    assert effective_parameters(covariance, ridge) == pytest.approx(float(smoother.trace()))


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


def test_positions_that_hardly_count_are_hardly_samples() -> None:
    where = (torch.zeros(4, dtype=torch.short),) * 3
    drawn = {(0, "even"): Drawn(where), (1, "even"): Drawn(where, torch.full((4,), 0.5))}
    drawn[0, "one"] = Drawn(where, torch.tensor([4.0, 0.0, 0.0, 0.0]))
    found = Relevance(drawn=drawn).samples()
    assert found == {"even": pytest.approx((4 + 2) ** 2 / (4 + 1)), "one": 1.0}
