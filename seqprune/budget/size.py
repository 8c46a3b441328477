"""Smaller images as a move: which size, and how much is left to the other moves.

An image of 0.9 of the side costs 0.81 of the operations and loses little; so do factors at first, and both together
lose less than either alone. Of the sizes that leave a fair part to the others each is tried: network and images as they
would be, made with some of the train images and measured on the rest of them, beside the unpruned network on images of
that size. What the smaller image itself loses is a smooth curve through many sizes, and nothing has to be fitted for
it, so all images tell of it: from one size to the next a few dozen images say more of themselves than of the size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.polynomial import Polynomial

from seqprune.errors import InputError

STEP = 32
LEAST_LEFT, MOST_LEFT = 0.7, 0.95
"""Of the operations at a size, left to the other moves: with less they lose more than a smaller size does, with more
they save less than the steps of sizes are apart."""
EVERY = 4
"""One train image in so many is held out to choose by."""
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
FEWEST = 2 * EVERY
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
        InputError: no size that leaves enough of the network would do.
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
        raise InputError(
            f"no multiple of {step} below {imgsz} pixels brings the cost to {target:g}: take a greater target"
        )
    return found


def best(found: Sequence[Candidate], worth: Callable[[Candidate], float], images: int) -> Candidate:
    """The one worth most; where nothing can be measured, the one that leaves the middle to others.

    The smallest is tried first: a larger one, with more done to the network, has to be better than by chance, and none
    is tried beyond a hopeless one.

    Args:
        found: the largest first.
        worth: NaN where it cannot be measured, ``-inf`` where it is not possible.
        images: on how many the other moves are measured.

    Raises:
        InputError: none is possible.
    """
    taken, most, clear = None, math.nan, 1 + CHANCE / images**0.5
    possible = []
    for each in reversed(found):
        value = worth(each)
        if value != -math.inf:
            possible.append(each)
        if math.isfinite(value) and (taken is None or value > clear * most):
            taken, most = each, value
        elif value < HOPELESS * most:
            break
    if taken is not None:
        return taken
    if not possible:
        raise InputError("at none of the sizes that were tried the target can be met: take a greater target (--target)")
    return min(possible, key=lambda each: abs(each.left - (LEAST_LEFT + 1) / 2))


def along(found: Sequence[Candidate], imgsz: int, step: int = STEP) -> list[int]:
    """Sizes to measure for a curve from the one that the network is used at past the candidates, the largest first."""
    lowest = max(step, min(found[-1].imgsz, round(CURVE * imgsz / step) * step))
    sizes = [imgsz, *(size for size in range(imgsz - imgsz % step, lowest - 1, -step) if size < imgsz)]
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
    fitted = Polynomial.fit(np.log(sizes), np.log(values), min(2, len(measured) - 1))
    return lambda size: float(np.exp(fitted(np.log(size))))


def split(
    files: Sequence[Path],
    others: Sequence[Path] = (),
    every: int = EVERY,
    labelled: Callable[[Path], bool] = lambda _file: True,
) -> tuple[list[Path], list[Path]]:
    """By file name, those to fit to, ``MOST_FITTED`` at most, and those to choose by, ``MOST_HELD`` at most.

    What is found on an image without labels counts as wrong though nobody looked: by those nothing is chosen where
    others have labels.

    Args:
        files: train images that are looked at.
        others: train images that are not. They are what is chosen by; where they are fewer than one in
            ``every`` of ``files``, so many of these are held out beside them, and all that nothing need be fitted to.
        every: see there.
        labelled: whether an image has labels.

    Raises:
        InputError: too few to do both.
    """
    ordered = sorted(files)
    if len(ordered) < 2 * every:
        raise InputError(
            f"{len(ordered)} train images are too few to choose a size by: give {2 * every} or leave size out"
        )
    known = {file for file in (*ordered, *others) if labelled(file)} or {*ordered, *others}
    held = evenly([file for file in sorted(others) if file in known], MOST_HELD)
    if every * len(held) < len(ordered):
        spare = max(len(ordered) // every, len(ordered) - MOST_FITTED)
        held += evenly([file for file in ordered if file in known], min(spare, MOST_HELD - len(held)))
    apart = set(held)
    return evenly([file for file in ordered if file not in apart], MOST_FITTED), sorted(held)


def evenly(files: Sequence[Path], most: int) -> list[Path]:
    """``most`` of them at most, from all parts."""
    count = min(len(files), most)
    return [files[(2 * at + 1) * len(files) // (2 * count)] for at in range(count)]
