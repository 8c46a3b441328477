"""Layers whose errors reach the output count for more, and the model that is asked stays as it is."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from detectors import CLASSES, Detector, Images
from torch import nn

from seqprune.budgeted import scaled_weight
from seqprune.importance import importance_of_layers
from seqprune.observe.batch import sample
from seqprune.observe.patches import Sampler
from seqprune.observe.sources import second_moments

NAMES = ["model.1.conv", "model.3.conv", "model.4.cv2.conv", "model.5.0"]


def covariances(model: nn.Module) -> dict[str, torch.Tensor]:
    moments, leader = second_moments(model, NAMES, Images(), Sampler())
    return {name: moments[leader[name]].products[0] / moments[leader[name]].count for name in NAMES}


def distance_to(model: nn.Module) -> Callable[[nn.Module], float]:
    images = torch.cat([batch.images for batch in Images()]).float() / 255
    with torch.no_grad():
        reference = model(images)

    def distance(changed: nn.Module) -> float:
        with torch.no_grad():
            return float((changed(images) - reference).square().sum())

    return distance


def test_layers_whose_errors_reach_the_output_matter_more_and_the_model_stays_as_it_is() -> None:
    model = Detector()
    with torch.no_grad():
        model.get_submodule("model.4.cv2.conv").weight.mul_(100)
        model.get_submodule("model.4.cv2.bn").weight.zero_()  # nothing of it, or before it, reaches the output
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = importance_of_layers(model, covariances(model), distance_to(model), damping=1)
    assert [found[name] for name in NAMES[:3]] == [0, 0, 0]
    assert found["model.5.0"] == len(NAMES)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_the_mean_is_one_and_the_same_every_time() -> None:
    model = Detector()
    found = importance_of_layers(model, covariances(model), distance_to(model), damping=1)
    assert sum(found.values()) / len(found) == pytest.approx(1)
    assert all(value > 0 for value in found.values())
    assert found == importance_of_layers(model, covariances(model), distance_to(model), damping=1)


def test_disturbances_are_of_the_size_asked_for() -> None:
    """Four times the variance, four times the distance, where the output is linear in the weights."""
    model = Detector()
    sizes: list[float] = []
    measured = distance_to(model)

    def distance(changed: nn.Module) -> float:
        sizes.append(measured(changed))
        return sizes[-1]

    last = {"model.5.0": covariances(model)["model.5.0"]}
    for noise in (0.01, 0.04):
        importance_of_layers(model, last, distance, noise=noise)
    assert sizes[1] == pytest.approx(4 * sizes[0], rel=1e-3)


def test_rows_have_the_total_variance_they_are_given() -> None:
    model = Detector()
    covariance = covariances(model)["model.3.conv"]
    weight = scaled_weight(model, "model.3.conv", covariance, 2.5)
    assert float(((weight @ covariance) * weight).sum()) == pytest.approx(2.5)


def test_samples_are_spread_over_all_images() -> None:
    images = Images(count=40)
    parts = sample(images, 12)
    assert [len(part.images) for part in parts] == [4, 4, 4]
    firsts = [next(n for n, b in enumerate(images) if torch.equal(b.images[:4], part.images)) for part in parts]
    assert firsts == sorted(set(firsts))
    assert sum(len(part.images) for part in sample(images, 1000)) == 40
    for batch in images:
        whole = batch.split(3)
        assert [len(part.images) for part in whole] == [3, 3, 2]
        assert torch.equal(torch.cat([p.boxes for p in whole]), batch.boxes[batch.image_index.argsort(stable=True)])
        assert all((part.image_index < len(part.images)).all() for part in whole)
        assert set(batch.classes.tolist()) <= set(range(CLASSES))
