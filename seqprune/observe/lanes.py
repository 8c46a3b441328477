"""The same bits from every image, whatever lies beside it in its batch and however many threads there are.

A convolution adds up in another order for another number of images or threads: 1e-6 of a value, which t-SNE, chaotic as
it is, makes into another plan. No rounding takes that away, since some value always lies near an edge; so on a CPU the
sums are made the same. Images go through the network a fixed few at a time, each few on one thread, side by side in as
many lanes as there are threads. That is no slower: threads that share one convolution wait for each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import accumulate, chain
from math import prod
from queue import SimpleQueue
from typing import TypeVar

import torch
from torch import nn

from seqprune.graph.copying import copied
from seqprune.observe.batch import Batch, LabelledImages
from seqprune.observe.forward import Forward
from seqprune.observe.inputs import Inputs, count_of
from seqprune.observe.ranks import Ranks

T = TypeVar("T")
PIXELS, MOST = 640 * 640, 8
"""Small images go together, up to so many pixels and images: one alone leaves a core waiting between operators."""
WIDTH = 16
"""Batches of one size are joined up to so many images, and to what all lanes take, that none of them is idle."""


def together(images: torch.Tensor) -> int:
    """How many of ``images`` (``[B, C, …]``) go through a network at a time, by their size: 1, 2, 4 or 8."""
    size, pixels = 1, prod(images.shape[2:])
    while 2 * size <= MOST and 2 * size * pixels <= PIXELS:
        size *= 2
    return size


class Lanes:
    """Runs something over the images of batches.

    Each lane but the only one has its own modules, since some keep what they computed; all share their tensors.

    Args:
        model: what is run; its weights may not change meanwhile.
        forward: precision, and on a GPU how many images at a time.
    """

    def __init__(self, model: nn.Module, forward: Forward) -> None:
        self.model, self.forward = model, forward
        self.device = next(model.parameters()).device
        self._free: SimpleQueue[nn.Module] = SimpleQueue()

    def __call__(self, images: Inputs, run: Callable[[nn.Module, slice], T]) -> list[T]:
        """What ``run`` returns for a network and each part of ``images``, in order; tensors alone go in parts."""
        count, here = count_of(images), partial(run, self.model)
        if self.device.type != "cpu" or not isinstance(images, torch.Tensor):
            return self.forward(count, self.device, here)
        size = together(images)
        parts = [slice(at, min(at + size, count)) for at in range(0, count, size)]
        with _one_thread_each() as threads:
            if min(threads, len(parts)) == 1:
                return self.forward(count, self.device, here, size)
            for _ in range(self._free.qsize(), min(threads, len(parts))):
                self._free.put(_beside(self.model))
            with ThreadPoolExecutor(min(threads, len(parts)), thread_name_prefix="seqprune-lane") as pool:
                return list(pool.map(partial(self._one, run), parts))

    def _one(self, run: Callable[[nn.Module, slice], T], part: slice) -> T:
        lane = self._free.get()
        try:
            return self.forward.once(self.device, partial(run, lane), part)
        finally:
            self._free.put(lane)


class Joined:
    """Batches of images of one size joined, and filled up, to what goes through a network at a time.

    A few that are fewer than the others would be added up in another way. The filler repeats the last image.

    Args:
        images: in batches of any size.
        lanes: how many there are; 0 joins no batches.
    """

    def __init__(self, images: LabelledImages, lanes: int) -> None:
        self.images, self.lanes = images, lanes

    def __len__(self) -> int:
        """Number of batches; no more than that come."""
        return len(self.images)

    def __iter__(self) -> Iterator[Batch]:
        waiting: list[Batch] = []
        for batch in self.images:
            if not isinstance(batch.images, torch.Tensor):
                yield batch
                continue
            if waiting and (self._enough(waiting) or batch.images.shape[1:] != waiting[0].images.shape[1:]):
                yield _filled(waiting)
                waiting = []
            waiting.append(batch)
        if waiting:
            yield _filled(waiting)

    def _enough(self, batches: list[Batch]) -> bool:
        wanted = max(WIDTH, self.lanes * together(batches[0].images)) if self.lanes else 1
        return _size(batches) >= wanted


def joined(images: LabelledImages, model: nn.Module, ranks: Ranks) -> LabelledImages:
    """Batches as :class:`Joined` makes them where ``model`` runs on a CPU; a GPU takes them as they are.

    Processes that share the images take turns, batch by batch: what one joined would be added up in another order.
    """
    if next(model.parameters()).device.type != "cpu":
        return images
    return Joined(images, torch.get_num_threads() if ranks.count == 1 else 0)


def _size(batches: list[Batch]) -> int:
    return sum(batch.count for batch in batches)


def _filled(batches: list[Batch]) -> Batch:
    """One batch of them all, numbered as the first."""
    count = _size(batches)
    filler = -count % together(batches[0].images)
    if len(batches) == 1 and not filler:
        return batches[0]
    starts = accumulate(chain([0], (batch.count for batch in batches)))
    last = batches[-1].images[-1:].expand(filler, *batches[-1].images.shape[1:])
    boxes = [batch.boxes for batch in batches if batch.boxes is not None]
    return replace(
        batches[0],
        images=torch.cat([batch.images for batch in batches] + [last]),
        image_index=torch.cat([batch.image_index + start for batch, start in zip(batches, starts, strict=False)]),
        classes=torch.cat([batch.classes for batch in batches]),
        boxes=torch.cat(boxes) if boxes else None,
        filler=filler,
    )


def _beside(model: nn.Module) -> nn.Module:
    """The same network in other modules, with the very same tensors."""
    tensors = chain(model.parameters(), model.buffers())
    return copied(model, {id(tensor): tensor for tensor in tensors})


@contextmanager
def _one_thread_each() -> Iterator[int]:
    """Operators on one thread, in this thread and in those that are started meanwhile; gives the number before."""
    before = torch.get_num_threads()
    if before == 1:
        yield 1
        return
    torch.set_num_threads(1)
    try:
        yield before
    finally:
        torch.set_num_threads(before)
