"""Where more clusters stop paying.

V. Satopää, J. Albrecht, D. Irwin, B. Raghavan, "Finding a 'kneedle' in a haystack", ICDCS workshops, 2011, in the
``kneed`` package. With a polynomial of degree 2 the fitted curve is a parabola, whose knee lies near half of the range
whatever the scores are; the interpolated knee follows the scores.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Literal


def knee(
    ks: Sequence[int], scores: Sequence[float], fit: Literal["polynomial", "interp1d"] = "polynomial"
) -> int | None:
    """The knee of a concave, increasing curve.

    Returns:
        One of ``ks``, or ``None`` where the scores have no knee: fewer than three, constant, or never rising, for
        which Kneedle would answer with the first k.
    """
    from kneed import KneeLocator

    if len(ks) < 3 or max(scores) <= scores[0]:
        return None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="No knee/elbow found")
        found = KneeLocator(
            list(ks),
            list(scores),
            curve="concave",
            direction="increasing",
            interp_method=fit,
            polynomial_degree=2,
            online=True,
        ).all_knees
    # The first k is where Kneedle stops when scores dip at once: nothing was gained before it.
    return min((int(k) for k in found if k != ks[0]), default=None)
