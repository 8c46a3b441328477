"""Every numerical stage returns what the predecessor's returned, on its own seeded inputs.

The values were computed once by running the predecessor. Cases marked ``degenerate`` say what it did, not what is
right; there the tests state what this project does instead.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kneed import KneeLocator

from seqprune.observe.match import best_matches, centre_cells
from seqprune.select.clustering import Clustering, cluster, distances, mean_simplified_silhouette
from seqprune.select.knee import knee
from seqprune.select.moments import ClassMoments
from seqprune.select.represent import representatives
from seqprune.select.separability import bhattacharyya, jeffries_matusita

pytestmark = pytest.mark.regression

STAGES = json.loads((Path(__file__).parent / "predecessor_stages.json").read_text())


def cases(stage: str, *, degenerate: bool = False) -> list[Any]:
    found = [c for c in STAGES[stage] if c.get("degenerate", False) == degenerate]
    assert found
    return found


def two_classes(case: dict[str, Any]) -> ClassMoments:
    p, q = case["p"], case["q"]
    return ClassMoments.from_samples(np.array(p + q)[:, None], [0] * len(p) + [1] * len(q))


def clustering(case: dict[str, Any]) -> Clustering:
    return Clustering(np.array(case["labels"]), np.array(case["medoids"]))


@pytest.mark.parametrize("case", cases("jeffries_matusita"))
def test_separability(case: dict[str, Any]) -> None:
    moments = two_classes(case)
    assert bhattacharyya(moments)[0, 0] == pytest.approx(case["bhattacharyya"], rel=1e-12)
    assert jeffries_matusita(moments)[0, 0] == pytest.approx(case["jm"], rel=1e-12)


@pytest.mark.parametrize("case", cases("jeffries_matusita", degenerate=True))
def test_separability_of_too_few_samples_is_finite_and_the_class_is_left_out(case: dict[str, Any]) -> None:
    """Classes of one or two samples came out as perfectly separable; a minimum of samples keeps them out."""
    moments = two_classes(case)
    assert 0 <= jeffries_matusita(moments)[0, 0] <= 2
    assert moments.usable().classes == ()


@pytest.mark.parametrize(
    "case", cases("mean_simplified_silhouette") + cases("mean_simplified_silhouette", degenerate=True)
)
def test_mean_simplified_silhouette(case: dict[str, Any]) -> None:
    """The predecessor's distance of a medoid to itself was sometimes not 0 but about 1e-8, by rounding; such a medoid
    was not left out and counted as 1. Its value is ours with some number of medoids, 0 to k, counted so."""
    distance, found = distances(np.array(case["space"])), clustering(case)
    score = mean_simplified_silhouette(distance, found)
    others = int((distance[np.arange(len(distance)), found.medoids[found.labels]] != 0).sum())
    counted = [(score * others + extra) / max(others + extra, 1) for extra in range(len(found.medoids) + 1)]
    assert any(value == pytest.approx(case["mss"], rel=1e-7) for value in (score, *counted))


@pytest.mark.parametrize("case", [c for c in cases("mean_simplified_silhouette") if "weights" in c])
def test_the_channel_kept_of_each_cluster(case: dict[str, Any]) -> None:
    assert list(representatives(clustering(case), np.array(case["weights"]))) == case["kept_max_weight"]


@pytest.mark.parametrize("case", cases("mean_simplified_silhouette"))
def test_fasterpam_finds_partitions_as_good(case: dict[str, Any]) -> None:
    """Its draws differ from the predecessor's, so the labels may; the best of a few must be no worse a loss."""
    distance = distances(np.array(case["space"]))
    losses = [distance[:, cluster(distance, case["k"], seed).medoids].min(1).sum() for seed in range(20)]
    assert min(losses) <= case["loss"] * (1 + 1e-9)


@pytest.mark.parametrize("case", cases("knee"))
def test_knee(case: dict[str, Any]) -> None:
    found = knee(case["x"], case["y"])
    if found != case["knee"]:
        # The parabola may peak midway between two k; which of the two is greater is then rounding.
        fit = KneeLocator(
            case["x"],
            case["y"],
            curve="concave",
            direction="increasing",
            interp_method="polynomial",
            polynomial_degree=2,
        )
        height = dict(zip(case["x"], fit.y_difference, strict=True))
        assert height[found] == pytest.approx(height[case["knee"]], rel=1e-12)


@pytest.mark.parametrize("case", cases("knee", degenerate=True))
def test_scores_that_never_rise_have_no_knee(case: dict[str, Any]) -> None:
    """Kneedle answers 2 for constant and for decreasing scores: everything would collapse into two channels."""
    assert knee(case["x"], case["y"]) in (None, case["knee"])
    if max(case["y"]) <= case["y"][0]:
        assert knee(case["x"], case["y"]) is None


@pytest.mark.parametrize("case", cases("centre_cell"))
def test_the_cell_under_an_objects_centre(case: dict[str, Any]) -> None:
    boxes = torch.tensor([case["box_xyxy"]], dtype=torch.float64)
    rows, columns = centre_cells(boxes, tuple(case["image_hw"]), tuple(case["feature_hw"]))
    assert (rows.item(), columns.item()) == (case["row"], case["col"])


@pytest.mark.parametrize("case", cases("ground_truth_match"))
def test_the_prediction_that_matches_an_object(case: dict[str, Any]) -> None:
    predictions = torch.tensor([[*p["bbox"], 1.0, p["class"]] for p in case["predictions"]], dtype=torch.float64)
    boxes = torch.tensor([case["gt_xyxy"]], dtype=torch.float64)
    index, overlap = best_matches(boxes, torch.tensor([case["gt_class"]]), predictions.reshape(-1, 6))
    assert index.item() == (-1 if case["matched"] is None else case["matched"])
    assert overlap.item() == pytest.approx(case["iou"], rel=1e-6)
