"""The predecessor's way of doing the same, written anew from its description, as slow as it was.

It observed one image at a time: a whole forward pass with a hook on the layer, a Python loop over the objects, one
vector after the other appended to a list. It compared classes one channel and one pair at a time, from the raw samples
each time. It clustered for every k from a random start and scored cluster by cluster with scikit-learn's
``euclidean_distances``. Per layer of YOLOv8s, with 80 classes on two CPU cores, it needed 14, 31, 55 and 103 s for the
separability of 64, 128, 256 and 512 channels, and 0.8, 2.6, 10.4 and 43.8 s for the clustering with its knee.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import kmedoids
import numpy as np
import torch
from kneed import KneeLocator
from sklearn.manifold import TSNE
from sklearn.metrics.pairwise import euclidean_distances
from torch import nn

from seqprune.observe.batch import Batch
from seqprune.select.moments import FloatArray

Samples = dict[int, list[FloatArray]]
"""By class, the vectors of its objects."""
PERPLEXITY = 10
NO_DEVIATION = 1e-10


@dataclass(frozen=True)
class Swept:
    """By k, from 2 on: the partition, its loss and its score."""

    labels: list[Any]
    medoids: list[Any]
    losses: list[float]
    scores: list[float]


@dataclass(frozen=True)
class Selected:
    """Which channels stay, and the number of clusters."""

    keep: tuple[int, ...]
    k: int


def observe(model: nn.Module, layer: str, images: Iterable[Batch], classes: int) -> Samples:
    """The layer's output vectors at the cells under the objects' centres, image by image and object by object."""
    collected: Samples = {kind: [] for kind in range(classes)}
    seen: dict[str, torch.Tensor] = {}
    handle = model.get_submodule(layer).register_forward_hook(lambda _m, _a, output: seen.update(output=output))
    try:
        for batch in images:
            for number, image in enumerate(batch.images):
                with torch.no_grad():
                    model(image[None].to(next(model.parameters()).device).float() / 255)
                feature_map = seen["output"]
                mine = batch.image_index == number
                for kind, box in zip(batch.classes[mine], batch.boxes[mine], strict=True):
                    row, column = _cell(box, image.shape[-2:], feature_map.shape[-2:])
                    collected[int(kind)].append(feature_map[0, :, row, column].cpu().numpy())
    finally:
        handle.remove()
    return {kind: vectors for kind, vectors in collected.items() if vectors}


def _cell(box: torch.Tensor, image: Sequence[int], cells: Sequence[int]) -> tuple[int, int]:
    x, y = (float(box[0]) + float(box[2])) / 2, (float(box[1]) + float(box[3])) / 2
    row, column = math.floor(y / (image[0] / cells[0])), math.floor(x / (image[1] / cells[1]))
    return min(max(row, 0), cells[0] - 1), min(max(column, 0), cells[1] - 1)


def bhattacharyya(p: FloatArray, q: FloatArray) -> float:
    """Of two samples of one channel."""
    mean_p, mean_q = np.mean(p), np.mean(q)
    std_p, std_q = np.std(p), np.std(q)
    std_p = NO_DEVIATION if std_p == 0 else std_p
    std_q = NO_DEVIATION if std_q == 0 else std_q
    both = std_p**2 + std_q**2
    return float((mean_p - mean_q) ** 2 / both / 4 + math.log(both / (2 * std_p * std_q)) / 2)


def separability(samples: FloatArray, labels: FloatArray) -> FloatArray:
    """``[channels, pairs]`` Jeffries-Matusita distances of ``samples`` (``[n, channels]``)."""
    kinds = np.unique(labels)
    by_class = [samples[labels == kind] for kind in kinds]
    rows = []
    for channel in range(samples.shape[1]):
        row = []
        for first in range(len(kinds)):
            for second in range(first + 1, len(kinds)):
                distance = bhattacharyya(by_class[first][:, channel], by_class[second][:, channel])
                row.append(2 * (1 - math.exp(-distance)))
        rows.append(row)
    return np.array(rows)


def embed(matrix: FloatArray, seed: int) -> FloatArray:
    """``[channels, 2]``, scikit-learn's t-SNE as it comes, on as many threads as it is allowed."""
    return np.asarray(TSNE(n_components=2, perplexity=PERPLEXITY, random_state=seed).fit_transform(matrix))


def mean_simplified_silhouette(space: FloatArray, labels: Any, medoids: Any) -> float:
    """Cluster by cluster, from the coordinates. A medoid's distance to itself may come out as 1e-8, as it did then."""
    scores: list[float] = []
    for label in range(len(medoids)):
        apart = euclidean_distances(space[labels == label], space[medoids])
        for row in apart:
            own = row[label]
            if own == 0:
                continue
            others = (row.sum() - own) / max(len(medoids) - 1, 1)
            scores.append((others - own) / max(own, others))
    return float(np.mean(scores)) if scores else 1.0


def sweep(space: FloatArray, seed: int) -> Swept:
    """Every k from 2 to channels - 1 from a random start of its own; after a score of 1 all scores are 1."""
    swept = Swept([], [], [], [])
    for k in range(2, len(space)):
        if swept.scores and swept.scores[-1] == 1:
            swept.scores.append(1.0)
            continue
        found = kmedoids.fasterpam(euclidean_distances(space), k, random_state=seed)
        swept.labels.append(found.labels)
        swept.medoids.append(found.medoids)
        swept.losses.append(float(found.loss))
        swept.scores.append(mean_simplified_silhouette(space, found.labels, found.medoids))
    return swept


def knee(scores: Sequence[float]) -> int | None:
    """Kneedle on scores of 2, 3, … clusters: concave, increasing, a polynomial of degree 2."""
    found = KneeLocator(
        list(range(2, len(scores) + 2)),
        list(scores),
        curve="concave",
        direction="increasing",
        interp_method="polynomial",
        polynomial_degree=2,
    )
    return None if found.knee is None else int(found.knee)


def select(samples: FloatArray, labels: FloatArray, importance: FloatArray, seed: int) -> Selected:
    """The most important channel of every cluster at the knee."""
    space = embed(separability(samples, labels), seed)
    swept = sweep(space, seed)
    k = knee(swept.scores)
    if k is None:
        raise ValueError("the scores have no knee")
    at = min(k - 2, len(swept.labels) - 1)
    keep = []
    for label in range(len(swept.medoids[at])):
        members = [channel for channel in range(len(space)) if swept.labels[at][channel] == label]
        keep.append(max(members, key=lambda channel: importance[channel]))
    return Selected(tuple(sorted(keep)), k)
