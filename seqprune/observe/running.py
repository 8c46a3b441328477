"""Running moments of object vectors, on the device they are made on."""

from __future__ import annotations

import numpy as np
import torch

from seqprune.select.moments import ClassMoments


class RunningMoments:
    """Count, mean and squared deviations per (class, channel) in float64, object by object.

    Memory is classes × channels, whatever the number of images. Sums of differences from the first object of each class
    (T. F. Chan, G. H. Golub, R. J. LeVeque, "Algorithms for computing the sample variance", 1983): on a CPU they are
    the same bits for the same objects in the same order, however those came in batches. Of n objects a variance loses
    no more than a factor n to cancellation.

    Args:
        classes: how many there are.
        channels: of a vector.
        device: where they are kept.
    """

    def __init__(self, classes: int, channels: int, device: torch.device) -> None:
        self.count = torch.zeros(classes, dtype=torch.float64, device=device)
        self.first = torch.zeros(classes, channels, dtype=torch.float64, device=device)
        self.sum, self.squares = torch.zeros_like(self.first), torch.zeros_like(self.first)

    def add(self, vectors: torch.Tensor, kinds: torch.Tensor) -> None:
        """Object vectors ``[M, channels]`` of classes ``kinds`` (``[M]`` int64), on the device."""
        vectors = vectors.double()
        place = torch.full(self.count.shape, len(kinds), device=kinds.device)
        place.scatter_reduce_(0, kinds, torch.arange(len(kinds), device=kinds.device), "amin")
        new = (self.count == 0) & (place < len(kinds))
        self.first[new] = vectors[place[new]]
        apart = vectors - self.first[kinds]
        self.count.index_add_(0, kinds, torch.ones_like(kinds, dtype=torch.float64))
        self.sum.index_add_(0, kinds, apart)
        self.squares.index_add_(0, kinds, apart.square())

    def result(self) -> ClassMoments:
        """The moments of the classes that were seen."""
        count, first, total, squares = (t.cpu().numpy() for t in (self.count, self.first, self.sum, self.squares))
        seen = np.flatnonzero(count)
        mean = total[seen] / count[seen, None]
        return ClassMoments(
            classes=tuple(int(c) for c in seen),
            count=count[seen].astype(np.int64),
            mean=first[seen] + mean,
            m2=np.maximum(squares[seen] - total[seen] * mean, 0),
        )
