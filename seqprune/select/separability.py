"""How well each channel tells two classes apart.

Jeffries-Matusita distance of two normal distributions, as A. Levin and G. Singer use it in "GB-AFS: graph-based
automatic feature selection", Journal of Big Data, 2024 (arXiv 2309.02272), for feature selection.
"""

from __future__ import annotations

import numpy as np

from seqprune.errors import LayerSkipped
from seqprune.select.moments import ClassMoments, FloatArray

VARIANCE_FLOOR = 1e-6
"""Least variance of a class, as a share of the channel's variance over all classes. A class whose samples are equal
would otherwise be infinitely far from any other."""
_TINY = 1e-60  # where a channel is constant over all classes; its square must not underflow
_ROUNDING = 1e-12  # means of equal values differ by less than this, relatively; below it a deviation is noise


def bhattacharyya(moments: ClassMoments, variance_floor: float = VARIANCE_FLOOR) -> FloatArray:
    """``B = (μ₁-μ₂)² / 4(σ₁²+σ₂²) + ½ ln((σ₁²+σ₂²) / 2σ₁σ₂)`` of every channel and pair of classes.

    Returns:
        ``[channels, pairs]``, at least 0; pairs in lexicographic order of the classes.

    Raises:
        LayerSkipped: a moment is not finite.
    """
    check_finite(moments)
    mean, variance = moments.mean.T, moments.variance().T
    noise = (_ROUNDING * np.abs(mean).max(1, initial=0)) ** 2
    floor = np.maximum(np.maximum(variance_floor * _total_variance(moments), noise), _TINY)
    variance = np.maximum(variance, floor[:, None])
    left, right = np.triu_indices(len(moments.classes), 1)
    both = variance[:, left] + variance[:, right]
    log = np.log(variance)
    difference = mean[:, left] - mean[:, right]
    # Equal constants must be 0 apart although their floored variances are tiny.
    distance = difference**2 / both
    distance /= 4
    distance += (np.log(both / 2) - (log[:, left] + log[:, right]) / 2) / 2
    return np.asarray(np.maximum(distance, 0))


def jeffries_matusita(moments: ClassMoments, variance_floor: float = VARIANCE_FLOOR) -> FloatArray:
    """``JM = 2(1 - e⁻ᴮ)`` of every channel and pair of classes.

    Returns:
        ``[channels, pairs]`` in [0, 2]: 0 where the classes are distributed alike, 2 where they never overlap.

    Raises:
        LayerSkipped: a moment is not finite.
    """
    distance = bhattacharyya(moments, variance_floor)
    return np.asarray(-2 * np.expm1(-distance, out=distance))


def check_finite(moments: ClassMoments) -> None:
    """Raises :class:`LayerSkipped` where a channel's moments are NaN or infinite."""
    finite = np.isfinite(moments.mean + moments.m2).all(axis=0)
    if not finite.all():
        raise LayerSkipped(
            f"{int((~finite).sum())} of {finite.size} channels have activations that are not finite: broken weights or "
            "an overflow in half precision; check the weights, or observe in float32"
        )


def _total_variance(moments: ClassMoments) -> FloatArray:
    """``[channels]``, population variance over the samples of all classes."""
    count = moments.count[:, None]
    samples = max(int(moments.count.sum()), 1)
    grand = (moments.mean * count).sum(0) / samples
    total: FloatArray = (moments.m2.sum(0) + (count * (moments.mean - grand) ** 2).sum(0)) / samples
    return total
