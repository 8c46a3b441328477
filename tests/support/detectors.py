"""A tiny labelled set and a tiny detector for tests of the engine: no files, no Ultralytics."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import nn

from seqprune.observe.batch import Batch
from seqprune.testing.networks import SplitBlock, Unit, randomise

CLASSES = 3
SIDE = 32


class Images:
    """Squares of three colours on noise, one class a colour; batches can be gone through again and again."""

    def __init__(self, count: int = 24, batch: int = 8, seed: int = 0):
        self.batches = [replace(self._batch(batch, seed + n), number=n) for n in range(count // batch)]

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)

    @staticmethod
    def _batch(size: int, seed: int) -> Batch:
        generator = torch.Generator().manual_seed(seed)
        images = torch.randint(0, 60, (size, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
        index, classes, boxes = [], [], []
        for image in range(size):
            for _ in range(3):
                kind = int(torch.randint(0, CLASSES, (), generator=generator))
                x, y = torch.randint(0, SIDE - 8, (2,), generator=generator).tolist()
                images[image, kind, y : y + 8, x : x + 8] = 200
                index.append(image)
                classes.append(kind)
                boxes.append([x, y, x + 8.0, y + 8.0])
        return Batch(images, torch.tensor(index), torch.tensor(classes), torch.tensor(boxes))


class Detector(nn.Module):
    """Blocks numbered like Ultralytics': convolutions and split blocks, with and without shortcuts, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(
            Unit(3, 12, act=1),
            Unit(12, 16, act=1),
            SplitBlock(16, 16, 8, 2, shortcut=True),
            Unit(16, 24, act=1),
            SplitBlock(24, 20, 8, 1, shortcut=False),
            nn.Sequential(nn.Conv2d(20, CLASSES + 4, 1)),
        )
        randomise(self, 0)
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x)


def find_all(model: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    """A detector that finds every square: what ``predict`` would return for these images."""
    found = []
    for image in images:
        rows = []
        for kind in range(CLASSES):
            for y in range(SIDE - 7):
                for x in range(SIDE - 7):
                    if (image[kind, y : y + 8, x : x + 8] > 0.7).all():
                        rows.append([x, y, x + 8, y + 8, 0.9, kind])
        found.append(torch.tensor(rows, dtype=torch.float32).reshape(-1, 6))
    return found
