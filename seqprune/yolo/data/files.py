"""Images read from files, in batches, decoded ahead of their use."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy
from dataclasses import replace
from hashlib import sha256
from itertools import chain, islice
from pathlib import Path
from typing import Any

import cv2

from seqprune.errors import LostError
from seqprune.observe.batch import Batch
from seqprune.yolo.files.contained import one_line

_THREADS = max(1, min(4, os.cpu_count() or 1))
_BATCHES_AHEAD = 2


class FileImages:
    """Labelled images read from files, in batches: RGB, in the same order in every pass.

    Decoded by threads, two batches ahead of their use. Nothing is written to the data set's folder.

    Attributes:
        names: Class id to name.
        unreadable: The images left out: they, or their labels, cannot be read.
        image_count: Images used.
    """

    names: dict[int, str]
    unreadable: tuple[str, ...]

    def __init__(self, dataset: Any, batch: int, collate: Callable[[list[dict[str, Any]]], Batch]) -> None:
        self._dataset, self.batch, self._collate = dataset, batch, collate
        self.image_count = len(dataset)
        self._numbers: Sequence[int] = range(math.ceil(self.image_count / batch))

    @property
    def files(self) -> tuple[Path, ...]:
        """Paths of the images used, in the order of a pass."""
        return tuple(Path(file).absolute() for file in self._dataset.im_files)

    @property
    def objects(self) -> int:
        """Labelled objects in the images used; an image that is classified is one."""
        labels = getattr(self._dataset, "labels", None)
        if labels is None:
            return self.image_count
        return sum(len(labels[index]["cls"]) for number in self._numbers for index in self._batch(number))

    def fingerprint(self) -> str:
        """The same for the same files in the same order: by their names and sizes."""
        known = [f"{file.name} {file.stat().st_size}" for file in self.files]
        return sha256("\n".join([str(self.batch), *known]).encode()).hexdigest()

    def share(self, rank: int, count: int) -> FileImages:
        """Every ``count``-th batch from ``rank`` on, shaped as among all of them; the others are not decoded."""
        return self._part(self._numbers[rank::count])

    def hold_out(self, every: int = 8) -> tuple[FileImages, FileImages | None]:
        """All batches but one in ``every``, and those; ``None`` for them where there are not two batches."""
        held = [n for n in self._numbers if n % every == min(every, len(self._numbers)) // 2]
        if len(self._numbers) < 2:
            return self, None
        return self._part([n for n in self._numbers if n not in held]), self._part(held)

    def first(self, images: int) -> FileImages:
        """So many of them, of images that are all shaped alike."""
        return self.only(self.files[:images])

    def only(self, files: Collection[Path]) -> FileImages:
        """These of the files alone, of images that are all shaped alike."""
        part, wanted = copy(self), set(files)
        part._dataset = _Some(self._dataset, [n for n, file in enumerate(self.files) if file in wanted])
        part.image_count = len(part._dataset)
        part._numbers = range(math.ceil(part.image_count / self.batch))
        return part

    def _part(self, numbers: Sequence[int]) -> FileImages:
        part = copy(self)
        part._numbers = numbers
        part.image_count = sum(len(part._batch(n)) for n in numbers)
        return part

    def __len__(self) -> int:
        """Number of batches."""
        return len(self._numbers)

    def __iter__(self) -> Iterator[Batch]:
        """Go through all batches; leaving early stops the decoding."""
        jobs, numbers = map(self._batch, self._numbers), iter(self._numbers)
        pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="seqprune-images")
        try:
            waiting: deque[list[Future[dict[str, Any]]]] = deque()
            submitted = ([pool.submit(self._load, index) for index in job] for job in jobs)
            waiting.extend(islice(submitted, _BATCHES_AHEAD))
            for upcoming in chain(submitted, [None] * _BATCHES_AHEAD):
                if not waiting:
                    return
                ready = [future.result() for future in waiting.popleft()]
                if upcoming is not None:
                    waiting.append(upcoming)
                yield replace(self._collate(ready), number=next(numbers))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _batch(self, number: int) -> range:
        """Indices of the images of a batch."""
        return range(len(self._dataset))[number * self.batch : (number + 1) * self.batch]

    def _load(self, index: int) -> dict[str, Any]:
        """Decode one image and bring it to its size.

        Raises:
            LostError: it could be read when it was listed, and cannot be now.
        """
        try:
            item: dict[str, Any] = self._dataset[index]
        except (OSError, ValueError, RuntimeError, ImportError, cv2.error) as error:
            file = self._dataset.im_files[index]
            raise LostError(f"{file}: cannot be decoded ({one_line(error)}); put it back, or begin anew") from error
        return item


class _Some:
    """Some images of a data set, in their order."""

    def __init__(self, dataset: Any, indices: Sequence[int]) -> None:
        self.dataset, self.indices = dataset, indices
        self.im_files = [dataset.im_files[index] for index in indices]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[self.indices[index]]
