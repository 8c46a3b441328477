"""Anybody's data as the engine reads it: in the same order every time, each batch looked at before it is used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, Subset

from seqprune.errors import DataError, InputError
from seqprune.observe.batch import Batch, Images
from seqprune.observe.inputs import Inputs, count_of, height_width, part_of, tensors

Loader = Iterable[Any] | Callable[[], Iterable[Any]]
"""A data loader, or a function that returns one.

It gives batches: inputs as the network takes them (see :mod:`seqprune.observe.inputs`), or tuples or lists
``(inputs, classes)`` or ``(inputs, classes, places)``. ``classes`` are ``[B]`` whole numbers, one an input; other
targets in that place are not looked at. ``places`` are ``[M, 3]``: index of the input, row and column in pixels of
``[B, C, H, W]`` inputs; an object is seen at the cell of a layer's map that lies there, and ``classes`` are ``[M]``.
"""


class Classified(Images, Protocol):
    """Images of some classes.

    Attributes:
        classes: how many there are; 0 where nothing is labelled.
    """

    classes: int


class Batches:
    """Batches read once and kept: a loader that shuffles or augments gives others in every pass.

    Args:
        loader: see :data:`Loader`.
        batch: images of one batch, at most; larger ones are split.
        images: so many; all where left out. A seeded sample of a ``DataLoader`` over a dataset, and of a list of
            batches; from the front of anything else, whose end nobody knows.
        seed: of that sample.

    Attributes:
        image_count: images in all batches.
        classes: one more than the greatest class id; 0 where nothing is labelled.
        unreadable: nothing.

    Raises:
        InputError: the loader can be read only once.
        DataError: it gives nothing, or no batches of that form.
    """

    unreadable: tuple[str, ...] = ()

    def __init__(self, loader: Loader, batch: int = 16, images: int | None = None, seed: int = 0) -> None:
        given = loader() if callable(loader) else loader
        if isinstance(given, Iterator) and not callable(loader):
            raise InputError(
                f"data is a {type(given).__name__}, which can end: give a loader, or a function that returns one"
            )
        alone = isinstance(given, torch.Tensor | np.generic | np.ndarray)  # whose parts are no batches
        if alone or (not hasattr(given, "__iter__") and not hasattr(given, "__getitem__")):
            raise InputError(
                f"data is a {type(given).__name__}: give a loader, a list of batches, or a function that returns one"
            )
        self._batches: list[Batch] = []
        left = images
        with torch.random.fork_rng(devices=[]):  # a DataLoader draws of the caller's random numbers
            for whole in _batches(given, images, seed):
                for start in range(0, whole.count, batch):
                    stop = min(start + batch, whole.count, whole.count if left is None else start + left)
                    if stop <= start:
                        break
                    left = None if left is None else left - (stop - start)
                    self._batches.append(_piece(whole, slice(start, stop), len(self._batches)))
                if left == 0:
                    break
        if not self._batches:
            raise DataError("the data gave no batch: a function has to return a new loader on every call")
        labelled = [int(each.classes.max()) for each in self._batches if len(each.classes)]
        self.classes = max(labelled, default=-1) + 1
        self.image_count = sum(each.count for each in self._batches)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self._batches)

    def __len__(self) -> int:
        return len(self._batches)

    def fingerprint(self) -> str:
        """The same for the same inputs and labels in the same order."""
        found = sha256()
        for batch in self._batches:
            for tensor in tensors((batch.images, batch.classes, batch.boxes)):
                found.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
                found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return found.hexdigest()

    def hold_out(self, every: int = 8) -> tuple[Batches, Batches | None]:
        """All batches but one in ``every``, and those; ``None`` for them where there are not two batches."""
        count = len(self._batches)
        held = {n for n in range(count) if n % every == min(every, count) // 2}
        if count < 2:
            return self, None
        return self._part(sorted(set(range(count)) - held)), self._part(sorted(held))

    def deal(self, count: int, images: int) -> list[Batches]:
        """``count`` samples of ``images`` each, one after another, without an image in common.

        Raises:
            InputError: there are not so many images.
        """
        if count * images > self.image_count:
            raise InputError(
                f"{count} samples of {images} out of {self.image_count} train images have some in common: give fewer "
                "images, or fewer subsets"
            )
        return [self._between(start, start + images) for start in range(0, count * images, images)]

    def first(self, images: int) -> Batches:
        """So many images from the front."""
        return self._between(0, min(images, self.image_count))

    def _between(self, start: int, stop: int) -> Batches:
        """The images from one on and before another."""
        part = object.__new__(Batches)
        part._batches, at = [], 0
        for batch in self._batches:
            mine = slice(max(start - at, 0), min(stop - at, batch.count))
            if mine.start < mine.stop:
                part._batches.append(_piece(batch, mine, len(part._batches)))
            at += batch.count
        part.classes, part.image_count = self.classes, stop - start
        return part

    def _part(self, numbers: Sequence[int]) -> Batches:
        part = object.__new__(Batches)
        part._batches = [self._batches[n] for n in numbers]
        part.classes, part.image_count = self.classes, sum(each.count for each in part._batches)
        return part


def _batches(given: Iterable[Any], images: int | None, seed: int) -> Iterator[Batch]:
    """Of the loader, or of a sample of its images, in its order."""
    draw = torch.Generator().manual_seed(seed)
    if images is not None and isinstance(given, DataLoader) and given.batch_size is not None and _has_rows(given):
        rows = sorted(set(given.sampler))
        few = Subset(given.dataset, [rows[at] for at in torch.randperm(len(rows), generator=draw)[:images].sort()[0]])
        given = DataLoader(few, given.batch_size, collate_fn=given.collate_fn, num_workers=given.num_workers)
    found = (_batch(sample, number) for number, sample in enumerate(given))
    if images is None or not isinstance(given, Sequence):
        yield from found
        return
    whole = list(found)
    ends = torch.tensor([0, *(each.count for each in whole)]).cumsum(0)
    chosen = torch.randperm(int(ends[-1]), generator=draw)[:images].sort()[0]
    for batch, start, end in zip(whole, ends[:-1], ends[1:], strict=True):
        mine = chosen[(chosen >= start) & (chosen < end)] - start
        if len(mine):
            yield _rows(batch, mine)


def _has_rows(loader: DataLoader[Any]) -> bool:
    """Whether images of a dataset can be asked for by number."""
    return not isinstance(loader.dataset, IterableDataset)


def _rows(batch: Batch, rows: torch.Tensor) -> Batch:
    """The images of these numbers, in order, with their objects."""
    place = torch.full((batch.count,), -1)
    place[rows] = torch.arange(len(rows))
    chosen = batch.select(place[batch.image_index] >= 0)
    return replace(chosen, images=part_of(batch.images, rows.tolist()), image_index=place[chosen.image_index])


def _piece(batch: Batch, part: slice, number: int) -> Batch:
    """Some images of a batch with their objects."""
    mine = (batch.image_index >= part.start) & (batch.image_index < part.stop)
    chosen = batch.select(mine)
    return replace(
        chosen, images=part_of(batch.images, part), image_index=chosen.image_index - part.start, number=number
    )


def _batch(sample: Any, number: int) -> Batch:
    """
    Raises:
        DataError: it is no batch of the form that :data:`Loader` says.
    """
    parts: tuple[Any, ...] = tuple(sample) if isinstance(sample, tuple | list) and 1 <= len(sample) <= 3 else (sample,)
    inputs, labels, places = (*parts, None, None)[:3]
    given = list(tensors(inputs))
    if not given:
        raise DataError(
            f"batch {number} is a {type(sample).__name__} without a tensor in front: give inputs, (inputs, classes) or "
            "(inputs, classes, places)"
        )
    count = count_of(inputs)
    none = torch.zeros(0, dtype=torch.int64)
    if places is not None:
        return _placed(inputs, labels, places, count, number)
    if not isinstance(labels, torch.Tensor) or labels.is_floating_point() or labels.dim() != 1:
        return Batch(inputs, none, none)
    if len(labels) != count:
        raise DataError(f"batch {number} has {len(labels)} classes for {count} inputs: give one whole number each")
    if bool((labels < 0).any()):
        raise DataError(f"batch {number} has a class of {int(labels.min())}: class ids begin with 0")
    return Batch(inputs, torch.arange(count), labels.long().cpu())


def _placed(inputs: Inputs, labels: Any, places: Any, count: int, number: int) -> Batch:
    """
    Raises:
        DataError: objects without a class each, or outside their inputs.
    """
    if not isinstance(places, torch.Tensor) or places.shape[1:] != (3,):
        shape = list(places.shape) if isinstance(places, torch.Tensor) else type(places).__name__
        raise DataError(f"batch {number} has places of {shape}: give [M, 3], index of the input, row and column")
    places = places.cpu()
    if not isinstance(labels, torch.Tensor) or labels.is_floating_point() or labels.shape != (len(places),):
        shape = list(labels.shape) if isinstance(labels, torch.Tensor) else type(labels).__name__
        raise DataError(f"batch {number} has classes of {shape} for {len(places)} places: give one whole number each")
    limit = torch.tensor([count, *height_width(inputs)])
    if bool((labels < 0).any()) or not bool(((places >= 0) & (places < limit)).all()):
        raise DataError(f"batch {number} has a place outside its inputs of {limit[1:].tolist()}, or a class below 0")
    point = places[:, [2, 1]].double()
    return Batch(inputs, places[:, 0].long(), labels.long().cpu(), torch.cat([point, point], 1))
