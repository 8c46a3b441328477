"""What the benchmarks call the predecessor computes what the predecessor computed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import predecessor
from seqprune.select.clustering import Clustering, distances, mean_simplified_silhouette
from seqprune.select.moments import ClassMoments
from seqprune.select.separability import jeffries_matusita

STAGES = json.loads((Path(__file__).parents[1] / "regression" / "predecessor_stages.json").read_text())


@pytest.mark.parametrize("case", STAGES["jeffries_matusita"])
def test_its_separability_is_the_recorded_one_degenerate_cases_included(case: dict[str, Any]) -> None:
    p, q = np.array(case["p"]), np.array(case["q"])
    assert predecessor.bhattacharyya(p, q) == pytest.approx(case["bhattacharyya"], rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("case", STAGES["mean_simplified_silhouette"])
def test_its_score_is_the_recorded_one(case: dict[str, Any]) -> None:
    space, labels, medoids = np.array(case["space"]), np.array(case["labels"]), np.array(case["medoids"])
    found = predecessor.mean_simplified_silhouette(space, labels, medoids)
    # A medoid counts as 1 where its distance to itself is not quite 0, by rounding that differs by machine.
    distance = distances(space)
    score = mean_simplified_silhouette(distance, Clustering(labels, medoids))
    others = int((distance[np.arange(len(labels)), medoids[labels]] != 0).sum())
    counted = [(score * others + extra) / max(others + extra, 1) for extra in range(len(medoids) + 1)]
    for value in (found, case["mss"]):
        assert any(value == pytest.approx(each, rel=1e-6) for each in [score, *counted])


@pytest.mark.parametrize("case", STAGES["knee"])
def test_its_knee_is_the_recorded_one(case: dict[str, Any]) -> None:
    if case["x"] != list(range(2, len(case["x"]) + 2)):
        pytest.skip("the benchmarks only have scores of 2, 3, … clusters")
    found = predecessor.knee(case["y"])
    # A peak midway between two k falls to either by rounding.
    assert found == case["knee"] or (found is not None and abs(found - case["knee"]) <= 1)


def test_its_separability_of_many_channels_is_ours() -> None:
    rng = np.random.default_rng(0)
    samples, labels = rng.normal(size=(60, 7)), np.repeat(np.arange(4), 15)
    ours = jeffries_matusita(ClassMoments.from_samples(samples, labels))
    np.testing.assert_allclose(predecessor.separability(samples, labels), ours, rtol=1e-9, atol=1e-12)
