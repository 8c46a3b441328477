"""How batches go through a network: without gradients, in which precision, and how many images at a time."""

from __future__ import annotations

from collections.abc import Callable
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

    def __call__(self, images: int, device: torch.device, run: Callable[[slice], T]) -> list[T]:
        """What ``run`` returns for each part of a batch of ``images``, in order.

        Raises:
            InputError: not even one image fits in the memory.
        """
        while True:
            size = max(1, ceil(images / self.parts))
            try:
                with torch.no_grad(), torch.autocast(device.type, enabled=self.amp):
                    return [run(slice(start, min(start + size, images))) for start in range(0, images, size)]
            except torch.cuda.OutOfMemoryError as error:
                if size == 1:
                    raise InputError(
                        "CUDA ran out of memory with one image at a time: take smaller images, or another device"
                    ) from error
            # Outside the handler, whose traceback keeps the tensors of the attempt alive.
            self.parts *= 2
            torch.cuda.empty_cache()
            self.warn(f"CUDA ran out of memory with {size} images at a time: {ceil(images / self.parts)} from now on")
