"""Class-wise moments of channels: all that selection needs to know of the images.

Merging follows T. F. Chan, G. H. Golub, R. J. LeVeque, "Updating formulae and a pairwise algorithm for computing
sample variances", 1979.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ClassMoments:
    """Count, mean and sum of squared deviations of every channel in every class.

    Law: ``merge(from_samples(a), from_samples(b)) == from_samples(a + b)`` up to rounding.

    Attributes:
        classes: class ids, ascending.
        count: ``[classes]`` int64, samples of each class.
        mean: ``[classes, channels]``.
        m2: ``[classes, channels]``, sums of squared deviations from the mean.
    """

    classes: tuple[int, ...]
    count: npt.NDArray[np.int64]
    mean: FloatArray
    m2: FloatArray

    @classmethod
    def from_samples(cls, samples: npt.ArrayLike, labels: npt.ArrayLike) -> ClassMoments:
        """Moments of ``samples`` (``[n, channels]``, any float type, summed in float64) by ``labels`` (``[n]``)."""
        values, kinds = np.asarray(samples, np.float64), np.asarray(labels)
        classes = np.unique(kinds)
        parts = [values[kinds == c] for c in classes]
        channels = values.shape[1]
        mean = np.array([p.mean(0) for p in parts]).reshape(len(parts), channels)
        m2 = np.array([((p - m) ** 2).sum(0) for p, m in zip(parts, mean, strict=True)]).reshape(len(parts), channels)
        return cls(tuple(classes.tolist()), np.array([len(p) for p in parts], np.int64), mean, m2)

    def merge(self, other: ClassMoments) -> ClassMoments:
        """Moments of both sets of samples together."""
        classes = tuple(sorted({*self.classes, *other.classes}))
        a, b = self._spread(classes), other._spread(classes)
        count = a.count + b.count
        share = (b.count / np.maximum(count, 1))[:, None]
        delta = b.mean - a.mean
        mean = a.mean + delta * share
        return ClassMoments(classes, count, mean, a.m2 + b.m2 + delta**2 * share * a.count[:, None])

    def _spread(self, classes: Sequence[int]) -> ClassMoments:
        """The same over more classes, which have no samples."""
        rows = [classes.index(c) for c in self.classes]
        shape = (len(classes), self.mean.shape[1])
        count, mean, m2 = np.zeros(len(classes), np.int64), np.zeros(shape), np.zeros(shape)
        count[rows], mean[rows], m2[rows] = self.count, self.mean, self.m2
        return ClassMoments(tuple(classes), count, mean, m2)

    def variance(self) -> FloatArray:
        """``[classes, channels]``, population variance; 0 for a class without samples."""
        return self.m2 / np.maximum(self.count, 1)[:, None]

    def usable(self, min_samples: int = 5) -> ClassMoments:
        """Only the classes with at least ``min_samples`` samples: from fewer a variance says nothing."""
        rows = np.flatnonzero(self.count >= min_samples)
        return ClassMoments(tuple(self.classes[r] for r in rows), self.count[rows], self.mean[rows], self.m2[rows])

    def channels(self, index: npt.NDArray[np.intp]) -> ClassMoments:
        """Only the channels at ``index``."""
        return ClassMoments(self.classes, self.count, self.mean[:, index], self.m2[:, index])
