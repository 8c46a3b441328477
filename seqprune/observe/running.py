"""Running moments of object vectors, on the device they are made on."""

from __future__ import annotations

import numpy as np
import torch

from seqprune.select.moments import ClassMoments


class RunningMoments:
    """Count, mean and squared deviations per (class, channel) in float64, merged batch by batch.

    Memory is classes × channels, whatever the number of images. The merge is that of Chan, Golub and LeVeque,
    "Updating formulae and a pairwise algorithm for computing sample variances" (1979).
    """

    def __init__(self, classes: int, channels: int, device: torch.device) -> None:
        self.count = torch.zeros(classes, dtype=torch.float64, device=device)
        self.mean = torch.zeros(classes, channels, dtype=torch.float64, device=device)
        self.m2 = torch.zeros_like(self.mean)

    def update(self, vectors: torch.Tensor, classes: torch.Tensor) -> None:
        """Adds object vectors ``[M, channels]`` of ``classes`` (``[M]`` int64)."""
        vectors = vectors.double()
        count = torch.zeros_like(self.count).index_add_(0, classes, torch.ones_like(classes, dtype=torch.float64))
        mean = torch.zeros_like(self.mean).index_add_(0, classes, vectors) / count.clamp(min=1)[:, None]
        m2 = torch.zeros_like(self.m2).index_add_(0, classes, (vectors - mean[classes]) ** 2)
        total = self.count + count
        share = (count / total.clamp(min=1))[:, None]
        delta = mean - self.mean
        self.mean += delta * share
        self.m2 += m2 + delta**2 * share * self.count[:, None]
        self.count = total

    def result(self) -> ClassMoments:
        """The moments of the classes that were seen."""
        count = self.count.cpu().numpy()
        seen = np.flatnonzero(count)
        return ClassMoments(
            classes=tuple(int(c) for c in seen),
            count=count[seen].astype(np.int64),
            mean=self.mean.cpu().numpy()[seen],
            m2=self.m2.cpu().numpy()[seen],
        )
