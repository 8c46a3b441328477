"""Laws of moments and separability, against float64 references that loop."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from seqprune.select.moments import ClassMoments
from seqprune.select.separability import bhattacharyya, jeffries_matusita

values = st.floats(-100, 100, width=32)
lawful = settings(max_examples=60)


@st.composite
def samples(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    n, channels = draw(st.integers(1, 12)), 3
    return draw(arrays(np.float64, (n, channels), elements=values)), draw(
        arrays(np.int64, n, elements=st.sampled_from([0, 1, 8, 90]))
    )


def same(left: ClassMoments, right: ClassMoments) -> None:
    assert left.classes == right.classes
    np.testing.assert_array_equal(left.count, right.count)
    np.testing.assert_allclose(left.mean, right.mean, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(left.m2, right.m2, rtol=1e-9, atol=1e-6)


@lawful
@given(samples(), samples())
def test_merged_moments_are_those_of_all_samples(a: tuple[np.ndarray, ...], b: tuple[np.ndarray, ...]) -> None:
    both = ClassMoments.from_samples(np.concatenate([a[0], b[0]]), np.concatenate([a[1], b[1]]))
    left, right = ClassMoments.from_samples(*a), ClassMoments.from_samples(*b)
    same(left.merge(right), both)
    same(right.merge(left), both)


@lawful
@given(samples())
def test_variance_is_numpys(a: tuple[np.ndarray, np.ndarray]) -> None:
    moments = ClassMoments.from_samples(*a)
    for row, c in enumerate(moments.classes):
        np.testing.assert_allclose(moments.variance()[row], a[0][a[1] == c].var(0), rtol=1e-9, atol=1e-9)


@lawful
@given(samples())
def test_separability_lies_between_0_and_2_and_does_not_depend_on_the_order_of_classes(
    a: tuple[np.ndarray, np.ndarray],
) -> None:
    moments = ClassMoments.from_samples(*a)
    jm = jeffries_matusita(moments)
    k = len(moments.classes)
    assert jm.shape == (3, k * (k - 1) // 2)
    assert ((jm >= 0) & (jm <= 2)).all()
    back = ClassMoments(moments.classes, moments.count[::-1], moments.mean[::-1], moments.m2[::-1])
    square = np.zeros((k, k))
    for channel in range(3):
        square[np.triu_indices(k, 1)] = jm[channel]
        flipped = square.T[::-1, ::-1][np.triu_indices(k, 1)]
        np.testing.assert_allclose(jeffries_matusita(back)[channel], flipped, atol=1e-12)


def test_separability_is_the_formula_pair_by_pair() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 20)
    values = rng.normal(size=(80, 5)) * rng.uniform(0.5, 2, 5) + labels[:, None] * rng.normal(size=5)
    moments = ClassMoments.from_samples(values, labels)
    found = bhattacharyya(moments)
    pair = 0
    for i in range(4):
        for j in range(i + 1, 4):
            for c in range(5):
                p, q = values[labels == i, c], values[labels == j, c]
                both = p.var() + q.var()
                expected = (p.mean() - q.mean()) ** 2 / both / 4 + np.log(both / (2 * p.std() * q.std())) / 2
                np.testing.assert_allclose(found[c, pair], expected, rtol=1e-10)
            pair += 1


def test_classes_farther_apart_are_more_separable() -> None:
    def jm(gap: float) -> float:
        mean = np.array([[0.0], [gap]])
        return float(jeffries_matusita(ClassMoments((0, 1), np.array([9, 9]), mean, np.full((2, 1), 9.0)))[0, 0])

    found = [jm(gap) for gap in (0, 0.5, 1, 2, 4, 40)]
    assert found[0] == 0
    assert found == sorted(found)
    assert found[-1] == 2
