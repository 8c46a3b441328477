"""Laws of a whole choice, and its stages against references that loop."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import numpy as np
import pytest
from sklearn.decomposition import PCA

from seqprune.errors import LayerSkipped
from seqprune.select.choose import choose
from seqprune.select.clustering import Clustering, _one_more, cluster, distances, mean_simplified_silhouette, sweep
from seqprune.select.embedding import embed, principal_coordinates
from seqprune.select.knee import knee
from seqprune.select.moments import ClassMoments, FloatArray
from seqprune.select.represent import representatives
from seqprune.select.separability import bhattacharyya, jeffries_matusita

CHANNELS = 24
IMPORTANCE = np.random.default_rng(5).permutation(CHANNELS).astype(float)


def moments(samples: list[int], channels: int = CHANNELS, seed: int = 0) -> ClassMoments:
    """So many samples of each class."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(samples)), samples)
    centres = rng.normal(size=(len(samples), channels))
    return ClassMoments.from_samples(centres[labels] + rng.normal(size=(len(labels), channels)), labels)


FOUR = moments([30, 20, 9, 12])


@pytest.mark.parametrize("represent", ["weight", "medoid"])
@pytest.mark.parametrize("keep", ["knee", 0.4])
def test_one_channel_of_each_cluster_stays_and_it_is_the_right_one(
    represent: Literal["weight", "medoid"], keep: Any
) -> None:
    choice = choose([FOUR], IMPORTANCE, keep=keep, represent=represent, seed=1)
    seen = choice.seen
    assert seen is not None
    assert choice.k == len(choice.keep) == len(seen.medoids) == len(set(seen.medoids.tolist()))
    assert keep == "knee" or choice.k == round(keep * CHANNELS)
    assert len(choice.scores) == (CHANNELS - 2 if keep == "knee" else 0)
    assert choice.keep == tuple(sorted(choice.keep))
    for label, medoid in enumerate(seen.medoids):
        members = np.flatnonzero(seen.labels == label)
        (kept,) = set(choice.keep) & set(members.tolist())
        assert kept == (medoid if represent == "medoid" else max(members, key=lambda at: IMPORTANCE[at]))
    assert (seen.space == embed(jeffries_matusita(FOUR), 1)).all()


def test_classes_are_shown_as_far_apart_as_the_channels_say() -> None:
    choice = choose([FOUR], IMPORTANCE, keep=0.4)
    assert choice.seen is not None
    jm = jeffries_matusita(FOUR)
    for found, channels in ((choice.seen.before, list(range(CHANNELS))), (choice.seen.after, list(choice.keep))):
        pair = 0
        for i in range(4):
            assert found[i, i] == 0
            for j in range(i + 1, 4):
                expected = sum(jm[channel, pair] for channel in channels) / len(channels)
                assert found[i, j] == found[j, i] == pytest.approx(expected)
                pair += 1


@pytest.mark.parametrize("first", [True, False])
def test_of_several_layers_the_one_that_knows_most_classes_names_them_and_all_are_heard(first: bool) -> None:
    """Channels that are joined have moments of each layer, which may have seen other objects."""
    poor = moments([4, 20, 30, 3], seed=8)
    both = [FOUR, poor] if first else [poor, FOUR]
    choice = choose(both, IMPORTANCE, keep=0.4)
    assert choice.classes == (0, 1, 2, 3)
    assert choice.seen is not None
    rows = np.concatenate([jeffries_matusita(each.usable(5)) for each in both], 1)
    assert (choice.seen.space == embed(rows, 0)).all()
    alone = choose([FOUR], IMPORTANCE, keep=0.4).seen
    assert alone is not None
    np.testing.assert_array_equal(choice.seen.before, alone.before)


@pytest.mark.parametrize(("samples", "least", "classes"), [([9, 5, 4], 5, 2), ([9, 5, 4], 4, 3), ([9, 5, 4], 6, 1)])
def test_a_class_counts_from_as_many_objects_as_are_asked_for(samples: list[int], least: int, classes: int) -> None:
    if classes < 2:
        with pytest.raises(LayerSkipped, match=f"1 of 3 classes have at least {least} objects"):
            choose([moments(samples)], IMPORTANCE, min_samples=least)
    else:
        assert len(choose([moments(samples)], IMPORTANCE, keep=0.5, min_samples=least).classes) == classes


@pytest.mark.parametrize(("keep", "left"), [(1.0, 24), (0.99, 24), (0.97, 23), (0.03, 1), (0.001, 1)])
def test_nothing_is_clustered_where_all_stays(keep: float, left: int) -> None:
    choice = choose([FOUR], IMPORTANCE, keep=keep)
    assert (len(choice.keep), choice.k) == (left, left)
    assert (choice.seen is None) == (left == CHANNELS)
    if left == 1:
        assert choice.keep == (int(IMPORTANCE.argmax()),)
        middle = choose([FOUR], IMPORTANCE, keep=keep, represent="medoid")
        assert middle.seen is not None
        assert middle.keep == (int(distances(middle.seen.space).sum(1).argmin()),)


def test_a_few_channels_have_no_knee_and_do_have_shares() -> None:
    assert len(choose([moments([9, 9], channels=4)], np.ones(4), keep=0.5).keep) == 2
    try:
        assert len(choose([moments([9, 9, 9], channels=5)], np.ones(5)).keep) < 5
    except LayerSkipped as why:
        assert "a knee over" not in str(why)  # noqa: PT017 - either will do


# ---- stages -------------------------------------------------------------------------------------------------------


def points(count: int, seed: int) -> FloatArray:
    return np.random.default_rng(seed).normal(size=(count, 2))


@pytest.mark.parametrize("seed", range(4))
def test_every_partition_of_a_sweep_is_one_and_its_score_is_the_formula(seed: int) -> None:
    space = np.concatenate([points(8, seed), points(3, seed)])  # three points twice
    distance = distances(space)
    naive = [[float(np.hypot(*(a - b))) for b in space] for a in space]
    np.testing.assert_allclose(distance, naive)
    curve = sweep(distance, seed)
    assert curve.ks == tuple(range(2, 11))
    assert len(curve.scores) == len(curve.ks)
    losses = []
    for k, score in zip(curve.ks, curve.scores, strict=True):
        found = curve.clustering(k)
        medoids, labels = found.medoids, found.labels
        nearest = distance[:, medoids].min(1)
        assert len(medoids) == len(set(medoids.tolist())) == min(k, len(curve.clusterings) + 1)
        np.testing.assert_allclose(distance[np.arange(11), medoids[labels]], nearest)
        values = []
        for at in range(11):
            own = distance[at, medoids[labels[at]]]
            others = [distance[at, m] for number, m in enumerate(medoids) if number != labels[at]]
            if own:
                values.append((np.mean(others) - own) / max(np.mean(others), own))
        assert score == pytest.approx(np.mean(values) if values else 1.0)
        losses.append(nearest.sum())
    assert losses == sorted(losses, reverse=True)
    best = min(distance[:, cluster(distance, 2, draw).medoids].min(1).sum() for draw in range(10))
    assert losses[0] <= best * 1.2


@pytest.mark.parametrize("scale", [2.0**-160, 2.0**160])
def test_partitions_do_not_depend_on_the_unit_of_distances(scale: float) -> None:
    """FasterPAM gets them in single precision, in which 1e39 is infinite and 1e-46 nothing."""
    distance = distances(points(12, 0))
    one, other = sweep(distance, 0), sweep(scale * distance, 0)
    assert one.scores == other.scores
    for k in one.ks:
        assert one.clustering(k).labels.tolist() == other.clustering(k).labels.tolist()


def test_a_partition_of_one_is_as_bad_as_can_be() -> None:
    distance = distances(points(6, 0))
    alone = Clustering(np.zeros(6, np.intp), np.array([2], np.intp))
    assert mean_simplified_silhouette(distance, alone) == -1


@pytest.mark.parametrize("seed", range(5))
def test_the_next_medoid_is_the_farthest_point_that_is_none(seed: int) -> None:
    space = points(7, seed) if seed else np.zeros((7, 2))
    distance = distances(space)
    medoids = np.array([3, 0, 5], np.intp)
    *same, new = _one_more(distance, medoids).tolist()
    assert same == medoids.tolist()
    others = [at for at in range(7) if at not in same]
    assert new == max(others, key=lambda at: min(distance[at, m] for m in same))


def test_far_from_one_medoid_is_not_far_from_all() -> None:
    line = distances(np.array([[0.0, 0], [10, 0], [12, 0], [5, 0]]))
    assert _one_more(line, np.array([0, 1], np.intp)).tolist() == [0, 1, 3]


def test_equal_importance_goes_to_the_first_and_order_is_that_of_the_medoids() -> None:
    clustering = Clustering(np.array([1, 0, 1, 0, 1], np.intp), np.array([3, 4], np.intp))
    assert representatives(clustering, np.ones(5)) == (1, 0)
    assert representatives(clustering, np.array([0.0, 1, 2, 3, 2])) == (3, 2)
    assert representatives(clustering) == (3, 4)


@pytest.mark.parametrize("fit", ["polynomial", "interp1d"])
def test_the_knee_is_where_a_rise_ends(fit: Literal["polynomial", "interp1d"]) -> None:
    ks = range(2, 22)
    for bend in (6, 9):
        scores = [min(k, bend) / bend + k * 1e-4 for k in ks]
        found = knee(ks, scores, fit)
        assert found is not None
        assert found == bend if fit == "interp1d" else bend < found < 16
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # two points are no parabola
        assert knee((2, 3), (0.1, 0.5), fit) is None
    assert knee((2, 3, 4), (0.5, 0.5, 0.5), fit) is None
    assert knee((2, 3, 4), (0.1, 0.5, 0.2), fit) == 3
    assert knee(ks, [k**3 for k in ks], fit) is None, "the more clusters the better"


def test_of_several_knees_the_first() -> None:
    stairs = [*np.linspace(0, 0.6, 6), *[0.601, 0.602, 0.603, 0.604], *np.linspace(0.7, 1, 4), *[1.001, 1.002, 1.003]]
    assert knee(range(2, 2 + len(stairs)), stairs, "interp1d") == 7


@pytest.mark.parametrize("shape", [(10, 6), (6, 10), (3, 2), (40, 45)])
def test_principal_coordinates_are_those_of_scikit_learn(shape: tuple[int, int]) -> None:
    for seed in range(8):
        rows = np.random.default_rng(seed).uniform(0, 2, shape)
        found = principal_coordinates(rows)
        np.testing.assert_allclose(np.abs(found), np.abs(PCA(2, svd_solver="full").fit_transform(rows)), atol=1e-9)
        for axis in ((rows - rows.mean(0)).T @ found).T:
            assert axis[np.abs(axis).argmax()] > 0


def test_where_there_is_no_axis_coordinates_are_zero() -> None:
    line = np.outer(np.arange(6.0), [1, 2, -1])
    assert (principal_coordinates(line)[:, 1] == 0).all()
    np.testing.assert_allclose(np.ptp(principal_coordinates(line)[:, 0]), 5 * np.sqrt(6))
    assert (principal_coordinates(np.ones((4, 3))) == 0).all()
    assert principal_coordinates(np.ones((1, 3))).tolist() == [[0, 0]]
    assert principal_coordinates(np.array([[0.0, 3], [4, 0]]))[:, 0].tolist() == pytest.approx([-2.5, 2.5])


@pytest.mark.parametrize("distinct", [1, 4, 5, 6, 40])
def test_what_tsne_is_asked_for(distinct: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """From five distinct rows on; equal rows are one to it, and equal points."""
    asked: list[dict[str, Any]] = []

    class Spy:
        def __init__(self, **arguments: Any) -> None:
            asked.append(arguments)

        def fit_transform(self, rows: FloatArray) -> FloatArray:
            assert len(rows) == distinct
            return rows[:, :2] + 1

    monkeypatch.setattr("sklearn.manifold.TSNE", Spy)
    rows = np.random.default_rng(0).permutation(np.arange(distinct * 3.0).reshape(distinct, 3) / 100)
    twice = np.concatenate([rows, rows[::-1] + 1e-9])
    found = embed(twice, 7)
    np.testing.assert_array_equal(found[:distinct], found[distinct:][::-1])
    if distinct < 5:
        assert asked == []
        np.testing.assert_allclose(np.abs(found[:distinct]), np.abs(principal_coordinates(rows)), atol=1e-5)
    else:
        np.testing.assert_allclose(found[:distinct], rows[:, :2] + 1, atol=1e-5)
        (how,) = asked
        assert how["perplexity"] == min(10, (distinct - 1) / 3)
        assert (how["random_state"], how["n_jobs"], how["n_components"]) == (7, 1, 2)
        assert how["init"][:, 0].std() == pytest.approx(1e-4, rel=1e-3)


def test_the_least_variance_is_a_share_of_that_of_all_samples() -> None:
    """Classes of equal samples: the formula with nothing but the floor, for classes of unequal size."""
    values = np.array([[0.0, 5.0]] * 3 + [[2.0, 4.0]] * 9)
    known = ClassMoments.from_samples(values, [0] * 3 + [1] * 9)
    floor = 0.01 * values.var(0)
    gap = np.array([2.0, 1.0])
    np.testing.assert_allclose(bhattacharyya(known, 0.01)[:, 0], gap**2 / (4 * 2 * floor))
    np.testing.assert_allclose(jeffries_matusita(known, 10.0)[:, 0], 2 * (1 - np.exp(-(gap**2) / (8000 * floor))))


def test_a_class_without_samples_has_no_variance_and_some_channels_are_those() -> None:
    none = FOUR.merge(ClassMoments((9,), np.zeros(1, np.int64), np.zeros((1, CHANNELS)), np.zeros((1, CHANNELS))))
    assert (none.variance()[-1] == 0).all()
    index = np.array([5, 2], np.intp)
    part = FOUR.channels(index)
    assert (part.classes, part.count.tolist()) == (FOUR.classes, FOUR.count.tolist())
    np.testing.assert_array_equal(part.mean, FOUR.mean[:, index])
    np.testing.assert_array_equal(part.m2, FOUR.m2[:, index])
