"""Channels as points in the plane: alike in what they separate, close together.

L. van der Maaten, G. Hinton, "Visualizing data using t-SNE", JMLR 9, 2008, in scikit-learn's implementation.
"""

from __future__ import annotations

import numpy as np
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
    from sklearn.manifold import TSNE  # takes a second, and other presets need none of it

    if not np.isfinite(separability).all():
        raise LayerSkipped("the separability is not finite; check the weights and the images")
    rows, origin = np.unique(np.round(separability / _RESOLUTION), axis=0, return_inverse=True)
    rows *= _RESOLUTION
    # More threads only wait for each other on matrices this small.
    with threadpool_limits(limits=1):
        start = principal_coordinates(rows)
        if len(rows) < 5:
            return np.asarray(start[origin.ravel()])
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
    from scipy.linalg import eigh

    points = np.zeros((len(rows), 2))
    if len(rows) < 2:
        return points
    centred = rows - rows.mean(0)
    # Of the products of rows rather than of the rows: there are ten times as many pairs of classes as channels.
    squares, left = eigh(centred @ centred.T, subset_by_index=[len(rows) - 2, len(rows) - 1])
    squares, left = squares[::-1], left[:, ::-1]
    real = squares > len(rows) * np.finfo(np.float64).eps * squares[0]
    axes = left.T @ centred
    # The sign of an axis is arbitrary; its largest entry is made positive, as scikit-learn's PCA does.
    signs = np.sign(axes[[0, 1], np.abs(axes).argmax(1)])
    points[:, real] = left[:, real] * np.sqrt(squares[real]) * signs[real]
    return points
