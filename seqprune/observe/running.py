"""Running moments of object vectors, on the device they are made on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from seqprune.select.moments import ClassMoments


@dataclass
class RunningMoments:
    """Count, mean and squared deviations per (class, channel) in float64, merged batch by batch.

    Memory is classes × channels, whatever the number of images. The merge is that of Chan, Golub and LeVeque,
    "Updating formulae and a pairwise algorithm for computing sample variances" (1979).

    Attributes:
        count: ``[classes]``.
        mean: ``[classes, channels]``.
        m2: ``[classes, channels]``.
    """

    count: torch.Tensor
    mean: torch.Tensor
    m2: torch.Tensor

    @classmethod
    def empty(cls, classes: int, channels: int, device: torch.device) -> RunningMoments:
        mean = torch.zeros(classes, channels, dtype=torch.float64, device=device)
        return cls(torch.zeros(classes, dtype=torch.float64, device=device), mean, torch.zeros_like(mean))

    @classmethod
    def of(cls, vectors: torch.Tensor, kinds: torch.Tensor, classes: int) -> RunningMoments:
        """Of object vectors ``[M, channels]`` of classes ``kinds`` (``[M]`` int64), all on one device."""
        seen = cls.empty(classes, vectors.shape[1], vectors.device)
        vectors = vectors.double()
        seen.count.index_add_(0, kinds, torch.ones_like(kinds, dtype=torch.float64))
        seen.mean.index_add_(0, kinds, vectors).div_(seen.count.clamp(min=1)[:, None])
        seen.m2.index_add_(0, kinds, (vectors - seen.mean[kinds]) ** 2)
        return seen

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process may not have this one's GPU, and would begin to use it.
        return RunningMoments, (self.count.cpu(), self.mean.cpu(), self.m2.cpu())

    def merge(self, other: RunningMoments) -> None:
        total = self.count + other.count
        share = (other.count / total.clamp(min=1))[:, None]
        delta = other.mean - self.mean
        self.mean += delta * share
        self.m2 += other.m2 + delta**2 * share * self.count[:, None]
        self.count = total

    def to(self, device: torch.device | str) -> RunningMoments:
        return RunningMoments(self.count.to(device), self.mean.to(device), self.m2.to(device))

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
