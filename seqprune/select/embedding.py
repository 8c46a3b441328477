"""Channels as points in the plane: alike in what they separate, close together.

L. van der Maaten, G. Hinton, "Visualizing data using t-SNE", JMLR 9, 2008, in scikit-learn's implementation.
"""

from __future__ import annotations

import numpy as np
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from seqprune.errors import LayerSkipped
from seqprune.select.moments import FloatArray

PERPLEXITY = 10.0
_RESOLUTION = 1e-6  # t-SNE works in float32; rows closer than this are one point to it


def embed(separability: FloatArray, seed: int, perplexity: float = PERPLEXITY) -> FloatArray:
    """Embeds channels in two dimensions.

    Equal rows get equal points, and only distinct rows reach t-SNE: on a matrix of identical rows scikit-learn divides
    by a standard deviation of zero and takes the whole process down. Where there are too few distinct rows for
    neighbourhoods to mean anything, their principal coordinates are returned.

    Args:
        separability: ``[channels, pairs]``, finite.
        seed: of the optimisation.
        perplexity: lowered where fewer channels do not allow it.

    Returns:
        ``[channels, 2]``.

    Raises:
        LayerSkipped: a value is not finite.
    """
    if not np.isfinite(separability).all():
        raise LayerSkipped("the separability is not finite; check the weights and the images")
    rows, origin = np.unique(np.round(separability / _RESOLUTION), axis=0, return_inverse=True)
    rows *= _RESOLUTION
    start = principal_coordinates(rows)
    if len(rows) < 5:
        return np.asarray(start[origin.ravel()])
    # More threads only wait for each other on matrices this small.
    with threadpool_limits(limits=1):
        points = TSNE(
            n_components=2,
            perplexity=min(perplexity, (len(rows) - 1) / 3),
            init=(start / start[:, 0].std() * 1e-4).astype(np.float32),
            learning_rate="auto",
            random_state=seed,
            n_jobs=1,
        ).fit_transform(rows.astype(np.float32))
    return np.asarray(points, np.float64)[origin.ravel()]


def principal_coordinates(rows: FloatArray) -> FloatArray:
    """``[n, 2]``, projections on the first two principal axes; zero where there is no such axis."""
    centred = rows - rows.mean(0)
    left, scale, axes = np.linalg.svd(centred, full_matrices=False)
    # The sign of an axis is arbitrary; its largest entry is made positive, as scikit-learn's PCA does.
    signs = np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(1)])
    points = np.zeros((len(rows), 2))
    found = min(2, len(scale))
    points[:, :found] = (left * scale * np.where(signs == 0, 1, signs))[:, :found]
    return points
