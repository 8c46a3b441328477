"""What the engine needs to know about labelled images, whoever supplies them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Protocol

import torch
from torch import nn

from seqprune.observe.inputs import Inputs, as_input, call, count_of, part_of


@dataclass(frozen=True)
class Batch:
    """Some images, as the network takes them, and the labelled objects in them.

    All that the engine needs to know of a task: boxes for what detects, none for what classifies.

    Attributes:
        images: what the network takes, see :mod:`seqprune.observe.inputs`: for detectors ``[B, 3, H, W]``, RGB,
            ``uint8`` in [0, 255] or floating point in [0, 1].
        image_index: ``[M]`` int64, in ``[0, B)``: the image each object is in.
        classes: ``[M]`` int64, class ids of the objects.
        boxes: ``[M, 4]`` float32, ``x1 y1 x2 y2`` in pixels of ``images``: an object is seen at the cell under its
            centre. Without them it fills its image, and the mean over all cells is its vector.
        number: which of all batches it is, the same in every pass and every share of them.
        filler: how many images at the end only fill it up: they hold no object and do not count.
    """

    images: Inputs
    image_index: torch.Tensor
    classes: torch.Tensor
    boxes: torch.Tensor | None = None
    number: int = 0
    filler: int = 0

    @property
    def count(self) -> int:
        """Images in it."""
        return count_of(self.images)

    def input(self, model: nn.Module, part: slice | None = None) -> Inputs:
        """Some of the images, or all, as a model takes them."""
        return as_input(self.images if part is None else part_of(self.images, part), model)

    def run(self, model: nn.Module, part: slice) -> Any:
        """What a model returns for some of the images."""
        return call(model, self.input(model, part))

    def select(self, keep: torch.Tensor) -> Batch:
        """The same images with only the objects at ``keep`` (``[M]`` bool)."""
        boxes = None if self.boxes is None else self.boxes[keep]
        return replace(self, image_index=self.image_index[keep], classes=self.classes[keep], boxes=boxes)


class LabelledImages(Protocol):
    """Batches that can be gone through again and again, in the same order each time."""

    def __iter__(self) -> Iterator[Batch]: ...

    def __len__(self) -> int:
        """Number of batches."""


class Images(LabelledImages, Protocol):
    """Those of one run.

    Attributes:
        image_count: images in all batches.
        unreadable: what was left out, by name.
    """

    @property
    def image_count(self) -> int: ...

    @property
    def unreadable(self) -> tuple[str, ...]: ...

    def fingerprint(self) -> str:
        """The same for the same images in the same order."""

    def hold_out(self, every: int = 8) -> tuple[LabelledImages, LabelledImages | None]:
        """All batches but one in ``every``, and those; ``None`` for them where there are not two batches."""


def images_in(images: LabelledImages) -> int:
    """How many there are, fillers of the last batch included where nobody counted them."""
    known: int | None = getattr(images, "image_count", None)
    return len(images) * next(iter(images)).count if known is None else known


class Noise:
    """Two seeded images of noise without an object, where there are no images and only an example is needed.

    Args:
        side: height and width in pixels.
        channels: of an image.
        seed: of the noise.
    """

    image_count = 0
    unreadable: tuple[str, ...] = ()

    def __init__(self, side: int, channels: int = 3, seed: int = 0) -> None:
        random = torch.Generator().manual_seed(seed)
        none = torch.zeros(0, dtype=torch.int64)
        self.batch = Batch(torch.rand(2, channels, side, side, generator=random), none, none, torch.zeros(0, 4))

    def __iter__(self) -> Iterator[Batch]:
        return iter([self.batch])

    def __len__(self) -> int:
        return 1

    def fingerprint(self) -> str:
        return f"noise of {tuple(self.batch.images.shape)}"

    def hold_out(self, every: int = 8) -> tuple[LabelledImages, None]:
        return self, None


class Share:
    """Every ``count``-th batch of some images, from ``rank`` on."""

    def __init__(self, images: LabelledImages, rank: int, count: int) -> None:
        self.images, self.rank, self.count = images, rank, count

    def __iter__(self) -> Iterator[Batch]:
        return islice(iter(self.images), self.rank, None, self.count)

    def __len__(self) -> int:
        return len(range(self.rank, len(self.images), self.count))


def every(images: LabelledImages, first: int, step: int) -> LabelledImages:
    """Every ``step``-th batch from ``first`` on; images that can skip the others undecoded have a method ``share``."""
    own: Callable[[int, int], LabelledImages] = getattr(images, "share", lambda *which: Share(images, *which))
    return own(first, step)
