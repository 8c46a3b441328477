"""Smaller images as a move: which size, and how much is left to the other moves.

An image of 0.9 of the side costs 0.81 of the operations and loses little; so do factors at first, and both together
lose less than either alone. Of the sizes that leave a fair part to the others each is tried: network and images as they
would be, made with some of the train images and measured on the rest of them, beside the unpruned network on images of
that size. What the smaller image itself loses is a smooth curve through many sizes, and nothing has to be fitted for
it, so all images tell of it: from one size to the next a few dozen images say more of themselves than of the size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.polynomial import Polynomial

from seqprune.errors import InputError, TargetError

STEP = 32
LEAST_LEFT, MOST_LEFT = 0.7, 0.95
"""Of the operations at a size, left to the other moves: with less they lose more than a smaller size does, with more
they save less than the steps of sizes are apart."""
MOST_HELD = 256
MOST_KNOWN = 4 * MOST_HELD
"""Train images whose labels are read for it: of a whole COCO that took minutes."""
MOST_FITTED = 128
"""More of them bring every size nearer to the unpruned network, and change little about which one is the nearest."""
CHANCE = 0.05
"""Divided by the root of the number of images held out, the part of a mAP50-95, counted by objects, by which pairs that
leave 0.9 of the operations move for nothing beside the unpruned network on the same images: 0.035 to 0.045 of YOLOv8n
from 640 to 448 pixels, thirty draws of 32 of 166 train images. From one size to the next it moves by 0.11 to 0.14, by
0.03 to 0.06 on the curve."""
CURVE, MOST_ON_CURVE = 0.65, 6
"""The curve goes down to that share of the side, or to the smallest candidate, through so many sizes at most."""
HOPELESS = 0.95
"""Of the best that was found: where a size does worse, larger ones leave the other moves even less."""
FEWEST = 8
"""Train images to choose a size by."""


@dataclass(frozen=True)
class Candidate:
    """
    Attributes:
        imgsz: side in pixels.
        left: share of the cost at that size that the other moves have to leave; 1 where there is nothing to do.
    """

    imgsz: int
    left: float


@dataclass(frozen=True)
class Fold:
    """
    Attributes:
        fitted: images to fit to.
        held: images that have labels, to judge by; none of the former.
    """

    fitted: list[Path]
    held: list[Path]


def candidates(
    imgsz: int, target: float, cost: Callable[[int], float], step: int = STEP, others: bool = True
) -> list[Candidate]:
    """Sizes worth trying, the largest first.

    Args:
        imgsz: side in pixels that the network is used at now.
        target: share of its cost that stays.
        cost: of the network at a size.
        step: sizes are multiples of it.
        others: whether there are other moves to leave something to.

    Returns:
        The largest at which the size alone is enough, and those that leave between ``LEAST_LEFT`` and ``MOST_LEFT`` to
        other moves.

    Raises:
        TargetError: no size that leaves enough of the network would do.
    """
    whole = cost(imgsz)
    found = []
    for size in range(imgsz - imgsz % step, 0, -step):
        left = target * whole / cost(size)
        if left >= 1:
            found.append(Candidate(size, 1.0))
            break
        if others and LEAST_LEFT <= left <= MOST_LEFT:
            found.append(Candidate(size, left))
    if not found:
        raise TargetError(
            f"no multiple of {step} below {imgsz} pixels brings the cost to {target:g}: take a greater target"
        )
    return found


def best(found: Sequence[Candidate], worth: Callable[[Candidate], float], margin: float) -> Candidate:
    """The one worth most; where nothing can be measured, the one that leaves the middle to others.

    The smallest is tried first: a larger one, with more done to the network, has to be better than by chance, and none
    is tried beyond a hopeless one.

    Args:
        found: the largest first.
        worth: NaN where it cannot be measured, ``-inf`` where it is not possible.
        margin: part of what one is worth by which another has to be better, see :func:`chance`.

    Raises:
        TargetError: none is possible.
    """
    taken, most = None, math.nan
    possible = []
    for each in reversed(found):
        value = worth(each)
        if value != -math.inf:
            possible.append(each)
        if math.isfinite(value) and (taken is None or value > (1 + margin) * most):
            taken, most = each, value
        elif value < HOPELESS * most:
            break
    if taken is not None:
        return taken
    if not possible:
        raise TargetError("at none of the sizes tried the target can be met: take a greater target (--target)")
    return min(possible, key=lambda each: abs(each.left - (LEAST_LEFT + 1) / 2))


def along(found: Sequence[Candidate], imgsz: int, step: int = STEP) -> list[int]:
    """Sizes to measure for a curve from the one that the network is used at past the candidates, the largest first."""
    lowest = max(step, min(found[-1].imgsz, round(CURVE * imgsz / step) * step))
    sizes = [imgsz, *(size for size in range(imgsz - imgsz % step, lowest - step, -step) if size < imgsz)]
    count = min(len(sizes), MOST_ON_CURVE)
    return [sizes[at * (len(sizes) - 1) // max(1, count - 1)] for at in range(count)]


def curve(measured: Mapping[int, float]) -> Callable[[int], float]:
    """Accuracy over sizes, by least squares: its logarithm as a parabola of that of the size.

    Args:
        measured: accuracy by side in pixels.

    Returns:
        The accuracy expected at a size; NaN everywhere where the network finds nothing at one of those.
    """
    sizes, values = np.array(list(measured)), np.array(list(measured.values()))
    if not (values > 0).all():
        return lambda _size: math.nan
    # Sizes as they are: scaled to -1 and 1, one size alone would be divided by zero.
    fitted = Polynomial.fit(np.log(sizes), np.log(values), min(2, len(measured) - 1), domain=[])
    return lambda size: float(np.exp(fitted(np.log(size))))


def folds(files: Sequence[Path], labelled: Collection[Path]) -> list[Fold]:
    """Train images to fit to and others to judge by, ``MOST_FITTED`` and ``MOST_HELD`` at most.

    Where half as many are left over as are fitted to, there is one fold; else there are two, in which either half is
    fitted to and the other judges, so that all of them do. What is found on an image without labels counts as wrong
    though nobody looked: none of these judges.

    Args:
        files: images that are looked at.
        labelled: those of them, and others, that have labels.

    Raises:
        InputError: too few to do both.
    """
    if len(files) < FEWEST:
        raise InputError(f"{len(files)} train images are too few to choose a size by: give {FEWEST} or leave size out")
    known, fitted = {*labelled}, evenly(sorted(files), MOST_FITTED)
    spare = known - {*fitted}
    if 2 * len(spare) >= len(fitted):
        return [Fold(fitted, evenly(sorted(spare), MOST_HELD))]
    every = sorted({*files, *spare}, key=lambda file: (file not in known, file))
    odd, even = every[::2], every[1::2]
    both = ((mine, [file for file in rest if file in known]) for mine, rest in ((even, odd), (odd, even)))
    return [Fold(evenly(sorted(mine), MOST_FITTED), evenly(rest, MOST_HELD)) for mine, rest in both if rest]


def chance(apart: Sequence[Fold]) -> float:
    """Part of an accuracy that is put down to chance where a network with more done to it seems better.

    Nothing in two folds: what they were fitted to is half of what the last network is, so that they lose more than it.
    """
    return CHANCE / len(apart[0].held) ** 0.5 if len(apart) == 1 else 0.0


def evenly(files: Sequence[Path], most: int) -> list[Path]:
    """``most`` of them at most, from all parts."""
    count = min(len(files), most)
    return [files[(2 * at + 1) * len(files) // (2 * count)] for at in range(count)]
