"""k-medoids for every k, and how good each k is.

E. Schubert, P. J. Rousseeuw, "Fast and eager k-medoids clustering", Information Systems 101, 2021 (FasterPAM), in the
``kmedoids`` package. The score is the mean simplified silhouette of GB-AFS (arXiv 2309.02272).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from seqprune.errors import LayerSkipped
from seqprune.select.moments import FloatArray

IndexArray = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Clustering:
    """One partition: the cluster of every point, and the point in the middle of every cluster."""

    labels: IndexArray
    medoids: IndexArray


@dataclass(frozen=True)
class Sweep:
    """Scores for every number of clusters.

    Attributes:
        ks: 2 to channels - 1.
        scores: mean simplified silhouette of each k, in [-1, 1].
        clusterings: the partition that was scored, for the ``ks`` up to the first score of 1.
    """

    ks: tuple[int, ...]
    scores: tuple[float, ...]
    clusterings: tuple[Clustering, ...]

    def clustering(self, k: int) -> Clustering:
        """The partition into ``k`` clusters; where every point lies on its medoid already, that partition."""
        return self.clusterings[min(k - 2, len(self.clusterings) - 1)]


def distances(space: FloatArray) -> FloatArray:
    """``[n, n]`` Euclidean distances of points ``[n, d]``.

    Raises:
        LayerSkipped: a point is not finite; FasterPAM would cluster it without a word.
    """
    if not np.isfinite(space).all():
        raise LayerSkipped("the embedding is not finite; check the weights and the images")
    difference = space[:, None] - space[None]
    return np.asarray(np.sqrt((difference**2).sum(2)))


def cluster(distance: npt.NDArray[np.floating], k: int, seed: int, start: IndexArray | None = None) -> Clustering:
    """FasterPAM from ``start`` (``[k]`` medoids), or from a seeded random draw."""
    import kmedoids  # as the others that only preset activation needs

    draw = np.random.default_rng([seed, k]).choice(len(distance), k, replace=False) if start is None else start
    found = kmedoids.fasterpam(distance, draw.astype(np.int64), n_cpu=1)
    return Clustering(np.asarray(found.labels, np.intp), np.asarray(found.medoids, np.intp))


def mean_simplified_silhouette(distance: FloatArray, clustering: Clustering) -> float:
    """Mean of ``(b - a) / max(a, b)`` over points that are not their own medoid's position.

    ``a`` is the distance to the own medoid, ``b`` the mean distance to all other medoids. 1 where every point
    lies on its medoid.
    """
    own = distance[np.arange(len(distance)), clustering.medoids[clustering.labels]]
    others = (distance[clustering.medoids].sum(0) - own) / max(len(clustering.medoids) - 1, 1)
    off = own != 0
    if not off.any():
        return 1.0
    a, b = own[off], others[off]
    return float(((b - a) / np.maximum(a, b)).mean())


def sweep(distance: FloatArray, seed: int) -> Sweep:
    """Clusters into 2 to n - 1 groups. Once every point lies on its medoid, so it does for all greater k."""
    ks = range(2, len(distance))
    # In float64 FasterPAM goes on with swaps that gain a rounding error: ten times as many.
    coarse = (distance / max(float(distance.max()), np.finfo(np.float64).tiny)).astype(np.float32)
    scores: list[float] = []
    clusterings: list[Clustering] = []
    for k in ks:
        start = _one_more(distance, clusterings[-1].medoids) if clusterings else None
        clusterings.append(cluster(coarse, k, seed, start))
        scores.append(mean_simplified_silhouette(distance, clusterings[-1]))
        if scores[-1] == 1:
            break
    return Sweep(tuple(ks), tuple(scores + [1.0] * (len(ks) - len(scores))), tuple(clusterings))


def _one_more(distance: FloatArray, medoids: IndexArray) -> IndexArray:
    """The medoids of k - 1 and the point farthest from all of them: close to the answer for k."""
    nearest = distance[medoids].min(0)
    nearest[medoids] = -1
    return np.append(medoids, nearest.argmax())
