"""Numerical edges of selection, one test each; every docstring names the failure it keeps away."""

from __future__ import annotations

import subprocess
import sys
import warnings

import numpy as np
import pytest

from seqprune.errors import InputError, LayerSkipped
from seqprune.select.choose import choose
from seqprune.select.clustering import distances, sweep
from seqprune.select.embedding import embed
from seqprune.select.knee import knee
from seqprune.select.moments import ClassMoments
from seqprune.select.separability import jeffries_matusita


def moments(classes: int = 4, channels: int = 24, samples: int = 30, seed: int = 0) -> ClassMoments:
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), samples)
    centres = rng.normal(size=(classes, channels))
    return ClassMoments.from_samples(centres[labels] + rng.normal(size=(len(labels), channels)), labels)


def with_samples(values: np.ndarray, labels: list[int]) -> ClassMoments:
    return ClassMoments.from_samples(values, labels)


IMPORTANCE = np.linspace(1, 2, 24)


def test_no_object_at_all() -> None:
    """An empty mean is NaN, and NaN clusters silently."""
    empty = ClassMoments((), np.zeros(0, np.int64), np.zeros((0, 24)), np.zeros((0, 24)))
    with pytest.raises(LayerSkipped, match="0 of 0 classes have at least 5 objects"):
        choose([empty], IMPORTANCE)


@pytest.mark.parametrize("classes", [0, 2])
def test_classes_without_an_object_are_no_distance_apart(classes: int) -> None:
    """No sample to divide by: NaN, and a warning on the terminal."""
    none = np.zeros((classes, 5))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jm = jeffries_matusita(ClassMoments(tuple(range(classes)), np.zeros(classes, np.int64), none, none))
    assert jm.shape == (5, classes // 2)
    assert (jm == 0).all()


def test_an_empty_class_is_left_out() -> None:
    """A class that no image shows has no mean."""
    full = moments()
    spread = full.merge(ClassMoments((7,), np.zeros(1, np.int64), np.zeros((1, 24)), np.zeros((1, 24))))
    assert choose([spread], IMPORTANCE).classes == full.classes


def test_a_class_of_few_samples_is_left_out() -> None:
    """One sample has no variance: its class looked perfectly separable (JM ≈ 2) from classes of equal mean."""
    few = with_samples(np.random.default_rng(0).normal(size=(4, 24)), [9] * 4)
    assert choose([moments().merge(few)], IMPORTANCE).classes == (0, 1, 2, 3)


def test_one_class_cannot_be_separated_from_anything() -> None:
    """No pair, no column, an empty matrix for t-SNE."""
    with pytest.raises(LayerSkipped, match="two are needed"):
        choose([moments(classes=1)], IMPORTANCE)


def test_two_classes_make_one_column() -> None:
    """scikit-learn's PCA initialisation fails on a single column."""
    assert 2 <= choose([moments(classes=2)], IMPORTANCE).k < 24


def test_zero_variance_is_floored_relative_to_the_channel() -> None:
    """An absolute floor makes large activations inseparable or small ones perfectly separable."""
    values = np.array([[0.0, 0, 1e6, 1e-6]] * 5 + [[0.0, 1, 2e6, 2e-6]] * 5)
    jm = jeffries_matusita(with_samples(values, [0] * 5 + [1] * 5))[:, 0]
    assert jm[0] == 0
    np.testing.assert_allclose(jm[1:], 2)


@pytest.mark.parametrize("scale", [1e-20, 1e-8, 1e8])
def test_scaling_a_channel_does_not_change_its_separability(scale: float) -> None:
    """The floor must not depend on the unit of the activations."""
    base = moments()
    scaled = ClassMoments(base.classes, base.count, base.mean * scale, base.m2 * scale**2)
    np.testing.assert_allclose(jeffries_matusita(scaled), jeffries_matusita(base), rtol=1e-9)


def test_dead_channels_separate_nothing_and_share_a_cluster() -> None:
    """0/0 in a channel that is constant over all classes."""
    values = np.random.default_rng(0).normal(size=(40, 24)) + np.repeat(np.eye(4, 24) * 3, 10, 0)
    values[:, 10:] = 5.0
    some = with_samples(values, np.repeat(np.arange(4), 10).tolist())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jm = jeffries_matusita(some)
        choice = choose([some], IMPORTANCE, keep=0.3)
    assert (jm[10:] == 0).all()
    assert sum(c >= 10 for c in choice.keep) == 1


def test_all_rows_identical() -> None:
    """scikit-learn's t-SNE took the process down; ours does not call it. A ratio still finds representatives."""
    same = ClassMoments((0, 1), np.array([9, 9]), np.zeros((2, 24)), np.full((2, 24), 9.0))
    assert (embed(np.ones((24, 6)), 0) == 0).all()
    with pytest.raises(LayerSkipped, match="no knee"):
        choose([same], IMPORTANCE)
    assert len(choose([same], IMPORTANCE, keep=0.5).keep) <= 12
    for seed in range(3):
        assert choose([same], IMPORTANCE, keep=0.01, represent="medoid", seed=seed).keep == (0,)


def test_no_degenerate_matrix_can_crash_the_process() -> None:
    """The crash on identical rows cannot be caught, so it must be impossible: run where a crash would show."""
    code = """
import numpy as np
from seqprune.select.embedding import embed
for distinct in range(1, 7):
    for gap in (1.0, 1e-5, 1e-9, 1e-30):
        rows = np.repeat(np.arange(distinct)[:, None] * gap + np.zeros((distinct, 7)), 9, 0)
        assert np.isfinite(embed(rows, 0)).all(), (distinct, gap)
print("lived")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)  # noqa: S603
    assert (done.returncode, done.stdout) == (0, "lived\n"), done.stderr[-2000:]


def test_only_distinct_rows_with_a_finite_start_reach_tsne(monkeypatch: pytest.MonkeyPatch) -> None:
    """The two ways into the crash, identical rows and a start divided by zero, are closed for any input."""
    seen = []

    class Spy:
        def __init__(self, **arguments: object) -> None:
            self.start = arguments["init"]

        def fit_transform(self, rows: np.ndarray) -> np.ndarray:
            seen.append(True)
            assert len(np.unique(rows, axis=0)) == len(rows) >= 5
            assert np.isfinite(self.start).all()
            assert np.ptp(self.start, axis=0)[0] > 0
            return np.zeros((len(rows), 2))

    monkeypatch.setattr("sklearn.manifold.TSNE", Spy)
    rng = np.random.default_rng(0)
    for trial in range(60):
        rows = np.repeat(rng.uniform(0, 2, (rng.integers(1, 12), rng.integers(1, 9))), rng.integers(1, 5), 0)
        embed(rows * 10.0 ** -rng.integers(0, 12), trial)
    assert seen


def test_fewer_channels_than_the_perplexity_allows() -> None:
    """t-SNE refuses a perplexity that is not below the number of rows."""
    assert np.isfinite(embed(np.random.default_rng(0).uniform(0, 2, (6, 3)), 0)).all()


def test_no_knee() -> None:
    """A missing knee came back as None and was used as a number."""
    assert knee((2, 3), (0.1, 0.2)) is None


@pytest.mark.parametrize("scores", [[1.0] * 9, list(np.linspace(1, 0, 9))])
def test_constant_or_decreasing_scores_have_no_knee(scores: list[float]) -> None:
    """Kneedle says 2, and a layer would collapse to two channels."""
    assert knee(range(2, 11), scores) is None


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_said(bad: float) -> None:
    """FasterPAM accepts NaN silently and returns some partition."""
    broken = moments()
    broken.mean[1, 3] = bad
    with pytest.raises(LayerSkipped, match="1 of 24 channels have activations that are not finite"):
        choose([broken], IMPORTANCE)
    one = np.arange(18.0).reshape(9, 2)
    one[4, 1] = bad
    for stage in (lambda: embed(one, 0), lambda: distances(one)):
        with pytest.raises(LayerSkipped, match="not finite"):
            stage()


def test_half_precision_samples_are_summed_in_float64() -> None:
    """Squares of half-precision activations overflow at 256."""
    values = np.random.default_rng(0).normal(300, 20, (40, 24)).astype(np.float16)
    labels = np.repeat([0, 1], 20)
    exact = ClassMoments.from_samples(values.astype(np.float64), labels)
    np.testing.assert_array_equal(ClassMoments.from_samples(values, labels).m2, exact.m2)
    assert np.isfinite(jeffries_matusita(exact)).all()


def test_a_knee_over_a_handful_of_channels_is_refused() -> None:
    """Two to three scores are no curve."""
    with pytest.raises(LayerSkipped, match="a knee over 4 channels"):
        choose([moments(channels=4)], np.ones(4))


def test_a_constant_channel_separates_nothing_however_its_mean_was_rounded() -> None:
    """Class means of a constant that differ in the last bit looked perfectly separable."""
    mean = np.array([[0.1], [np.nextafter(0.1, 1)]])
    assert jeffries_matusita(ClassMoments((0, 1), np.array([9, 9]), mean, np.zeros((2, 1))))[0, 0] < 1e-6


@pytest.mark.parametrize("share", [0.0, -1.0, 1.5, float("nan")])
def test_an_impossible_ratio_is_refused(share: float) -> None:
    """0 kept one channel, 1.5 kept all, NaN raised a bare ValueError."""
    with pytest.raises(InputError, match="share in"):
        choose([moments()], IMPORTANCE, keep=share)


def test_an_importance_that_is_not_finite_is_said() -> None:
    """argmax picks the NaN channel of a cluster without a word."""
    with pytest.raises(LayerSkipped, match="importance"):
        choose([moments()], np.where(np.arange(24) == 3, np.nan, 1.0))


def test_a_dip_at_the_first_k_is_no_knee() -> None:
    """The interpolated knee stopped at k = 2 where scores dip at once, and a layer collapsed to two channels."""
    scores = [0.2, 0.1, 0.4, 0.6, 0.7, 0.75, 0.78, 0.8, 0.81]
    assert knee(range(2, 11), scores, "interp1d") not in (None, 2)


def test_once_a_score_is_one_all_later_are() -> None:
    """Points on four places: from four clusters on everything lies on its medoid, and clustering on is idle."""
    space = np.repeat(np.array([[0.0, 0], [5, 0], [0, 5], [9, 9]]), 5, 0)
    curve = sweep(distances(space), 0)
    assert curve.scores[2:] == (1.0,) * (len(curve.ks) - 2)
    assert max(curve.scores[:2]) < 1
    assert len(curve.clusterings) == 3


@pytest.mark.parametrize(("ratio", "count"), [(1.0, 24), (0.5, 12), (0.25, 6), (0.01, 1)])
def test_a_ratio_keeps_that_share(ratio: float, count: int) -> None:
    assert len(choose([moments()], IMPORTANCE, keep=ratio).keep) == count


def test_equal_seeds_choose_equally() -> None:
    assert choose([moments()], IMPORTANCE, seed=3) == choose([moments()], IMPORTANCE, seed=3)
