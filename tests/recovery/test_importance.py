"""Layers whose errors reach what is detected count for more; rows are scaled as what follows scales them."""

from __future__ import annotations

import pytest
import torch
from detectors import Detector, Images

from seqprune.budget.importance import importance_of_layers, variances
from seqprune.budget.second_order import scaled_weight
from seqprune.observe.patches import Drawn, Sampler
from seqprune.observe.relevance import Relevance, relevance_of
from seqprune.observe.sources import second_moments

NAMES = ["model.1.conv", "model.3.conv", "model.4.cv2.conv", "model.5.0"]


def covariances(model: Detector) -> dict[str, torch.Tensor]:
    moments, leader = second_moments(model, NAMES, Images(), Sampler())
    return {name: moments[leader[name]].products[0] / moments[leader[name]].count for name in NAMES}


def varies_of(model: Detector) -> dict[str, torch.Tensor]:
    return {name: variances(model, name, covariance) for name, covariance in covariances(model).items()}


def test_the_cost_by_hand() -> None:
    """Variances 1 and 3 at curvatures 2 and 1: a cost of 5, a fifth of it where the curvature is a fifth."""
    model = torch.nn.ModuleDict({"a": torch.nn.Conv2d(2, 2, 1, bias=False)})
    model["a"].weight.data = torch.tensor([[1.0, 0.0], [0.6, 0.8]])[:, :, None, None]
    varies = variances(model, "a", torch.diag(torch.tensor([1.0, (3 - 0.36) / 0.64]).double()))
    torch.testing.assert_close(varies, torch.tensor([1.0, 3.0]).double())
    curvature = {"a": torch.tensor([2.0, 1.0]).double()}
    curvature["b"], curvature["c"] = curvature["a"] / 5, curvature["a"] * 3
    found = importance_of_layers(dict.fromkeys("abc", varies), curvature, damping=1)
    assert found == pytest.approx({"a": 1, "b": 0.2, "c": 3})
    found = importance_of_layers(dict.fromkeys("abc", varies), curvature, damping=0.5)
    assert found == pytest.approx({"a": 1, "b": 0.2**0.5, "c": 3**0.5})
    together = {"a": torch.tensor([3.0, 1.0]), "b": torch.tensor([0.0, 8.0]), "c": torch.tensor([2.0, 0.0])}
    found = importance_of_layers(dict.fromkeys("abc", varies), curvature, 1, together)
    assert found == pytest.approx({"a": 1, "b": 2, "c": 0.5})
    del together["a"]  # 5 of its own
    assert importance_of_layers(dict.fromkeys("abc", varies), curvature, 1, together)["a"] == pytest.approx(1)
    found = importance_of_layers({"a": varies, "d": 100 * varies, "e": varies / 100}, dict.fromkeys("ade", varies), 1)
    assert found == pytest.approx({"a": 1, "d": 100, "e": 0.01})


def test_each_group_of_a_convolution_varies_as_what_it_reads() -> None:
    model = torch.nn.ModuleDict({"a": torch.nn.Conv2d(4, 6, 1, groups=2, bias=False)})
    model["a"].weight.data = torch.ones(6, 2, 1, 1)
    covariance = torch.stack([torch.eye(2), torch.ones(2, 2)]).double()
    assert variances(model, "a", covariance).tolist() == [2.0] * 3 + [4.0] * 3


def test_what_was_not_asked_about_is_like_the_layer_in_the_middle() -> None:
    model = Detector()
    assert importance_of_layers(varies_of(model), {}) == dict.fromkeys(NAMES, 1.0)
    one = {"model.1.conv": torch.ones(16).double(), "model.3.conv": torch.zeros(24).double()}
    assert importance_of_layers(varies_of(model), one) == dict.fromkeys(NAMES, 1.0)


def test_what_does_not_reach_the_output_has_no_curvature() -> None:
    model = Detector()
    with torch.no_grad():
        model.get_submodule("model.4.cv2.bn").weight.zero_()  # nothing of it, or before it, reaches the output
    found = relevance_of(model, NAMES, Images(), lambda m, x, _random: m(x).square().sum())
    assert [float(found.curvature[name].sum()) for name in NAMES[:3]] == [0, 0, 0]
    assert float(found.curvature["model.5.0"].sum()) > 0


SCALE = torch.linspace(0.5, 2, 24).double()[:, None]


@pytest.mark.parametrize("slope", [None, torch.linspace(0.1, 1, 24).double()])
def test_rows_have_the_total_variance_they_are_given(slope: torch.Tensor | None) -> None:
    model = Detector()
    covariance = covariances(model)["model.3.conv"]
    varies = variances(model, "model.3.conv", covariance)
    weight = scaled_weight(model, "model.3.conv", SCALE, varies, 2.5, slope)
    assert float(((weight @ covariance) * weight).sum()) == pytest.approx(2.5)
    if slope is not None:  # flat outputs weigh less than without
        plain = scaled_weight(model, "model.3.conv", SCALE, varies, 2.5)
        ratios = weight.norm(dim=1) / plain.norm(dim=1) / slope.sqrt()
        assert torch.allclose(ratios, ratios[0].expand(24))


def test_rows_that_never_vary_cost_nothing() -> None:
    """Nothing over nothing is no number, and a number that is none chooses anything."""
    model = Detector()
    nothing = torch.zeros_like(varies_of(model)["model.3.conv"])
    for more in ({}, {"slope": torch.ones(24).double()}, {"together": torch.zeros(24).double()}):
        assert not scaled_weight(model, "model.3.conv", SCALE, nothing, 2.5, **more).any()


def test_positions_that_hardly_count_are_hardly_samples() -> None:
    where = (torch.zeros(4, dtype=torch.short),) * 3
    drawn = {(0, "even"): Drawn(where), (1, "even"): Drawn(where, torch.full((4,), 0.5))}
    drawn[0, "one"] = Drawn(where, torch.tensor([4.0, 0.0, 0.0, 0.0]))
    found = Relevance(drawn=drawn).samples()
    assert found == {"even": pytest.approx((4 + 2) ** 2 / (4 + 1)), "one": 1.0}


def test_rows_are_of_the_variance_that_each_costs_as_a_whole_where_that_is_known() -> None:
    model = Detector()
    covariance = covariances(model)["model.3.conv"]
    together = torch.linspace(0, 3, 24).double()
    varies = variances(model, "model.3.conv", covariance)
    weight = scaled_weight(model, "model.3.conv", SCALE, varies, 2.5, together=together)
    variance = ((weight @ covariance) * weight).sum(1)
    torch.testing.assert_close(variance, 2.5 * together / together.sum())
