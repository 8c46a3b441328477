"""Which channel speaks for its cluster."""

from __future__ import annotations

import numpy as np

from seqprune.select.clustering import Clustering
from seqprune.select.moments import FloatArray


def representatives(clustering: Clustering, importance: FloatArray | None = None) -> tuple[int, ...]:
    """The most important channel of every cluster (``importance``: ``[channels]``), or the medoids; ties to the first.

    Returns:
        Channel indices in the order of the medoids.
    """
    if importance is None:
        return tuple(clustering.medoids.tolist())
    chosen = []
    for label in range(len(clustering.medoids)):
        members = np.flatnonzero(clustering.labels == label)
        chosen.append(int(members[importance[members].argmax()]))
    return tuple(chosen)
