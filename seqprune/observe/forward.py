"""How batches go through a network: without gradients, in which precision, and how many images at a time."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from math import ceil
from typing import TypeVar

import torch

from seqprune.errors import InputError

T = TypeVar("T")


class Forward:
    """Runs something over a batch; where a GPU's memory runs out, over halves of it from then on.

    Args:
        amp: automatic mixed precision, float16 on a GPU and bfloat16 on the CPU.
        warn: told when the batch is halved.
    """

    def __init__(self, amp: bool = False, warn: Callable[[str], None] = lambda _text: None) -> None:
        self.amp, self.warn = amp, warn
        self.parts = 1

    def once(self, device: torch.device, run: Callable[[slice], T], part: slice) -> T:
        """What ``run`` returns for ``part``."""
        with torch.no_grad(), torch.autocast(device.type, enabled=self.amp):
            return run(part)

    def __call__(
        self, images: int, device: torch.device, run: Callable[[slice], T], most: int | None = None
    ) -> list[T]:
        """What ``run`` returns for each part of a batch of ``images``, ``most`` of them at a time, in order.

        Where it runs out of memory, it is called again for halves of the part that failed, and never for an image
        beyond; what it sums up along the way it must not sum up twice (see :class:`Once`).

        Raises:
            InputError: not even one image fits in the memory.
        """
        found: list[T] = []
        most = most or images
        parts = self._parts(0, images, images, most)
        while parts:
            part = parts[0]
            size = part.stop - part.start
            try:
                found.append(self.once(device, run, part))
            except torch.cuda.OutOfMemoryError as error:
                if size == 1:
                    raise InputError(
                        "CUDA ran out of memory with one image at a time: take smaller images, or another device"
                    ) from error
            else:
                parts.pop(0)
                continue
            # Outside the handler, whose traceback keeps the tensors of the attempt alive.
            self.parts *= 2
            torch.cuda.empty_cache()
            self.warn(f"CUDA ran out of memory with {size} images at a time: {ceil(images / self.parts)} from now on")
            parts = self._parts(part.start, part.stop, images, most) + self._parts(part.stop, images, images, most)
        return found

    def _parts(self, start: int, stop: int, images: int, most: int) -> list[slice]:
        size = max(1, min(most, ceil(images / self.parts)))
        return [slice(at, min(at + size, stop)) for at in range(start, stop, size)]


class Once:
    """Does something once for every part of a batch, though a part that ran out of memory is run again in halves."""

    def __init__(self) -> None:
        self._done: dict[Hashable, int] = {}

    def __call__(self, key: Hashable, part: slice, act: Callable[[], None]) -> None:
        """``act`` for the images of ``part``, unless it was done for them under this key; parts come in order."""
        if self._done.get(key, 0) < part.stop:
            act()
            self._done[key] = part.stop
