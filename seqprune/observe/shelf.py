"""Where block outputs wait between two steps: on the model's device, in memory, or on disk."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import cast

import torch

from seqprune.observe.batch import Batch
from seqprune.observe.inputs import mapped
from seqprune.observe.scratch import Scratch

Outputs = dict[int, torch.Tensor]
CACHE_BYTES = 4 << 30


@dataclass(frozen=True)
class Kept:
    """Outputs of one batch at rest, and the objects in its images.

    Attributes:
        place: ``device``, ``memory`` or ``disk``.
        bytes: how much room they take there.
        images: how many there are in the batch.
    """

    place: str
    bytes: int
    images: int
    dtypes: dict[int, torch.dtype] = field(repr=False)
    batch: Batch | None = field(default=None, repr=False)
    tensors: Outputs | None = field(default=None, repr=False)
    file: Path | None = field(default=None, repr=False)


class Shelf:
    """Keeps outputs on the device while they fit, then in memory, then in files that are mapped when they are read.

    A file lives in the system's temporary folder and may take up to half of what is free there.

    Args:
        memory: bytes in memory, and of them on a GPU no more than half of what is free there.
        half: floating point rests as float16: half the room, and outputs that are rounded to 11 bits.
        warn: told when a place is full.
    """

    def __init__(self, memory: int, half: bool, warn: Callable[[str], None]) -> None:
        self.memory, self.half, self.warn = memory, half, warn
        self._used = {"device": 0, "memory": 0, "disk": 0}
        self._room: dict[str, int] = {}
        self._folder: Scratch | None = None
        self._number = count()
        self._told: set[str] = set()

    def put(self, outputs: Outputs, batch: Batch, disk: bool = True) -> Kept | None:
        """Keeps outputs and objects; ``None`` where they fit nowhere, or only on a disk that is not wanted.

        Args:
            outputs: by block, what it returned for the images of ``batch``.
            batch: the objects; its images need no pixels.
            disk: whether they may go there.
        """
        dtypes = {source: t.dtype for source, t in outputs.items()}
        images = batch.count
        resting = {source: self._at_rest(t) for source, t in outputs.items()}
        size = sum(t.numel() * t.element_size() for t in resting.values())
        place = self._place(resting, size, disk)
        if place is None:
            return None
        if place == "disk":
            file = self._written(resting, batch)
            kept = None if file is None else Kept(place, size, images, dtypes, file=file)
        else:
            tensors = resting if place == "device" else {s: t.cpu() for s, t in resting.items()}
            kept = Kept(place, size, images, dtypes, batch, tensors)
        self._used[place] += size if kept else 0
        return kept

    def objects(self, kept: Kept) -> Batch:
        """The objects of the batch."""
        if kept.batch is not None:
            return kept.batch
        _, (number, filler), parts = torch.load(cast(Path, kept.file), mmap=True, weights_only=True)
        images, index, classes, boxes = mapped(torch.clone, parts)
        return Batch(images, index, classes, boxes, number, filler)

    def read(self, kept: Kept, device: torch.device) -> Outputs:
        """The outputs on ``device``, in the type they had; unsigned bytes stay where they are."""
        if kept.tensors is not None:
            return {s: t if t.dtype == torch.uint8 else t.to(device, kept.dtypes[s]) for s, t in kept.tensors.items()}
        mapped: Outputs = torch.load(cast(Path, kept.file), mmap=True, weights_only=True)[0]
        # Copied: the pages of a mapped file count as this process's memory while they are in use.
        where = {s: t.device if t.dtype == torch.uint8 else device for s, t in mapped.items()}
        return {s: t.to(where[s], kept.dtypes[s], copy=True) for s, t in mapped.items()}

    def drop(self, kept: Kept) -> None:
        self._used[kept.place] -= kept.bytes
        if kept.file is not None:
            kept.file.unlink(missing_ok=True)

    def clear(self) -> None:
        """Forgets everything, and removes the files."""
        self._used = dict.fromkeys(self._used, 0)
        self._room.clear()
        if self._folder is not None:
            self._folder.remove()
            self._folder = None

    def _at_rest(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.half() if self.half and tensor.is_floating_point() else tensor

    def _place(self, outputs: Outputs, size: int, disk: bool) -> str | None:
        gpu = next((t.device for t in outputs.values() if t.is_cuda), None)
        if gpu is not None and self._fits("device", size, gpu):
            return "device"
        if self._used["device"] + self._used["memory"] + size <= self.memory:
            return "memory"
        if disk and self._fits("disk", size):
            self._tell(
                "disk", f"block outputs outgrow {self.memory:,} bytes of memory: more are kept in {self._path()}"
            )
            return "disk"
        return None

    def _fits(self, place: str, size: int, gpu: torch.device | None = None) -> bool:
        if place not in self._room:
            if gpu is not None:
                self._room[place] = min(self.memory, torch.cuda.mem_get_info(gpu)[0] // 2)
            else:
                self._room[place] = shutil.disk_usage(self._path()).free // 2
        return self._used[place] + size <= self._room[place]

    def _tell(self, what: str, text: str) -> None:
        if what not in self._told:
            self._told.add(what)
            self.warn(text)

    def _path(self) -> Path:
        if self._folder is None:
            self._folder = Scratch()
        return self._folder.path

    def _written(self, outputs: Outputs, batch: Batch) -> Path | None:
        """The file. Objects go into it too: small tensors that stay between large ones that go keep memory in holes."""
        file = self._path() / f"{next(self._number)}.pt"
        parts = (batch.images, batch.image_index, batch.classes, batch.boxes)
        try:
            torch.save(({source: t.cpu() for source, t in outputs.items()}, (batch.number, batch.filler), parts), file)
        except (OSError, RuntimeError) as error:  # torch words a full disk as a RuntimeError
            self._tell("failed", f"block outputs cannot be written: {str(error).splitlines()[0]}")
            file.unlink(missing_ok=True)
            return None
        return file
