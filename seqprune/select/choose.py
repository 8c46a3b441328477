"""All stages in a row: moments → separability → embedding → k-medoids sweep → knee → keep set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from seqprune.errors import InputError, LayerSkipped
from seqprune.select.clustering import Clustering, IndexArray, cluster, distances, sweep
from seqprune.select.embedding import embed
from seqprune.select.knee import knee
from seqprune.select.moments import ClassMoments, FloatArray
from seqprune.select.represent import representatives
from seqprune.select.separability import jeffries_matusita

Keep = Literal["knee", "interpolated-knee"] | float
_FITS: dict[str, Literal["polynomial", "interp1d"]] = {"knee": "polynomial", "interpolated-knee": "interp1d"}


@dataclass(frozen=True)
class Choice:
    """What stays of some channels.

    Attributes:
        keep: sorted indices that stay.
        k: number of clusters.
        classes: class ids the separability was taken from.
        scores: mean simplified silhouette for 2, 3, … clusters; empty where k was given.
        seen: what was clustered; ``None`` where nothing was.
    """

    keep: tuple[int, ...]
    k: int
    classes: tuple[int, ...]
    scores: tuple[float, ...] = ()
    seen: Seen | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Seen:
    """What a choice was made from.

    Attributes:
        space: ``[channels, 2]``, the channels as t-SNE lays them out.
        labels: ``[channels]``, the cluster of each.
        medoids: ``[k]``, the channel in the middle of each cluster.
        before: ``[classes, classes]``, Jeffries-Matusita distance of two classes in [0, 2], a mean over the channels.
        after: the same over those that stay.
    """

    space: FloatArray
    labels: IndexArray
    medoids: IndexArray
    before: FloatArray
    after: FloatArray


def choose(
    moments: Sequence[ClassMoments],
    importance: FloatArray,
    *,
    keep: Keep = "knee",
    represent: Literal["weight", "medoid", "gamma"] = "weight",
    seed: int = 0,
    min_samples: int = 5,
) -> Choice:
    """Clusters channels by the classes they separate and keeps one of each cluster.

    Args:
        moments: one entry per member layer of the channel groups; column i of each belongs to group i.
        importance: ``[channels]``, decides within a cluster unless ``represent`` is ``medoid``.
        keep: where k comes from: a knee of the scores, or the share of channels in (0, 1].
        represent: see :class:`seqprune.engine.steps.Settings`.
        seed: of the embedding and the clustering.
        min_samples: classes with fewer objects are left out.

    Raises:
        LayerSkipped: nothing can be decided: no objects, fewer than two usable classes, values that are
            not finite, or no knee.
    """
    usable = [m.usable(min_samples) for m in moments]
    classes = max((m.classes for m in usable), key=len)
    channels = len(importance)
    if not isinstance(keep, str) and not 0 < keep <= 1:
        raise InputError(f"keep {keep}: give 'knee', 'interpolated-knee' or a share in (0, 1]")
    if not np.isfinite(importance).all():
        raise LayerSkipped("the importance of some channels is not finite: broken weights; check the weights")
    if len(classes) < 2:
        raise LayerSkipped(
            f"{len(classes)} of {len(moments[0].classes)} classes have at least {min_samples} objects, two are needed: "
            "use more images, or --match all"
        )
    if not isinstance(keep, str) and round(keep * channels) >= channels:
        return Choice(tuple(range(channels)), channels, classes)
    if channels < 5 and isinstance(keep, str):
        raise LayerSkipped(f"a knee over {channels} channels means nothing: give --keep a ratio")
    apart = [jeffries_matusita(m) for m in usable]
    space = embed(np.concatenate(apart, 1), seed)
    distance = distances(space)
    if isinstance(keep, str):
        curve = sweep(distance, seed)
        k = knee(curve.ks, curve.scores, _FITS[keep])
        if k is None:
            raise LayerSkipped(
                "the cluster scores have no knee: the channels separate classes alike; give --keep a ratio"
            )
        scores, clustering = curve.scores, curve.clustering(k)
    else:
        k, scores = max(1, round(keep * channels)), ()
        clustering = _single(distance) if k == 1 else cluster(distance, k, seed)
    chosen = sorted(representatives(clustering, None if represent == "medoid" else importance))
    widest = apart[max(range(len(usable)), key=lambda at: len(usable[at].classes))]
    seen = Seen(
        *(space, clustering.labels, clustering.medoids),
        *(_square(widest, len(classes)), _square(widest[chosen], len(classes))),
    )
    return Choice(tuple(chosen), k, classes, scores, seen)


def _square(apart: FloatArray, classes: int) -> FloatArray:
    """``[classes, classes]``: the mean over channels of ``[channels, pairs]``."""
    found: FloatArray = np.zeros((classes, classes))
    rows, columns = np.triu_indices(classes, 1)
    found[rows, columns] = found[columns, rows] = apart.mean(0)
    return found


def _single(distance: FloatArray) -> Clustering:
    """One cluster around the point with the least total distance."""
    return Clustering(np.zeros(len(distance), np.intp), np.array([distance.sum(1).argmin()], np.intp))
