"""What preset ``activation`` saw of a layer, small enough to be kept and drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from seqprune.select.choose import Choice

MOST_CLASSES = 20
"""So many classes are drawn against each other: the first of those that were used."""


def of(choices: Sequence[Choice]) -> dict[str, Any] | None:
    """The choice of a step that had the most channels to choose from, as plain data; ``None`` without any.

    Returns:
        ``space`` (x and y of each channel, between 0 and 1), ``labels`` (the cluster of each), ``medoids``, ``keep``
        (indices among them), ``scores`` (for 2, 3, … clusters), ``k``, ``classes`` and, of each pair of these, how far
        it is apart ``before`` and ``after``, in [0, 2].
    """
    seen = [(choice, choice.seen) for choice in choices if choice.seen is not None]
    if not seen:
        return None
    choice, found = max(seen, key=lambda each: len(each[1].labels))
    low, high = found.space.min(0), found.space.max(0)
    space = (found.space - low) / np.maximum(high - low, 1e-12)
    few = slice(MOST_CLASSES)
    return {
        "space": space.round(4).tolist(),
        "labels": found.labels.tolist(),
        "medoids": found.medoids.tolist(),
        "keep": list(choice.keep),
        "k": choice.k,
        "scores": [round(score, 4) for score in choice.scores],
        "classes": list(choice.classes[few]),
        "before": found.before[few, few].round(3).tolist(),
        "after": found.after[few, few].round(3).tolist(),
    }
