"""One process, or several under ``torchrun`` that each look at their share of the images.

Every batch is looked at by one process. What was seen of it is gathered and added up by all of them in the order of the
batches, and the first process decides: the plan is that of one process, bit for bit. The messages are vectors of
objects, a few hundred kilobytes, and go over gloo even between GPUs: it fails at once where a peer's connection ends.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch.distributed as dist

from seqprune.errors import LayerSkipped, SeqPruneError
from seqprune.observe.batch import LabelledImages, every

T = TypeVar("T")
# A process may measure or choose for long while the others wait; one that ends is noticed at once whatever this says.
_PATIENCE = timedelta(days=1)
_RENDEZVOUS = timedelta(seconds=60)


class Ranks:
    """One process.

    Attributes:
        rank: which one this is, from 0.
        count: how many there are.
    """

    rank, count = 0, 1

    def gather(self, mine: T) -> list[T]:
        """What every process gave, by rank."""
        return [mine]

    def first(self, decide: Callable[[], T]) -> T:
        """What ``decide`` returned, or the :class:`LayerSkipped` it raised, in the first process."""
        return decide()


ALONE = Ranks()


class Processes(Ranks):
    """Several processes of one gloo group."""

    def __init__(self, group: Any) -> None:
        self.group = group
        self.rank, self.count = dist.get_rank(group), dist.get_world_size(group)

    def gather(self, mine: T) -> list[T]:
        found: list[Any] = [None] * self.count
        self._call(lambda: dist.all_gather_object(found, mine, group=self.group))
        return cast("list[T]", found)

    def first(self, decide: Callable[[], T]) -> T:
        message: list[Any] = [None, ""]
        if self.rank == 0:
            try:
                message[0] = decide()
            except LayerSkipped as why:
                message[1] = str(why)
        self._call(lambda: dist.broadcast_object_list(message, src=0, group=self.group))
        if message[1]:
            raise LayerSkipped(message[1])
        return cast(T, message[0])

    def _call(self, communicate: Callable[[], object]) -> None:
        try:
            communicate()
        except RuntimeError as error:
            raise SeqPruneError(
                f"process {self.rank} of {self.count} lost the others ({str(error).splitlines()[0]}): one of them "
                "ended; what it printed says why"
            ) from error


def connect() -> Ranks:
    """The processes that ``torchrun`` started, or the ones of a process group that is there already.

    Raises:
        SeqPruneError: they did not find each other within a minute.
    """
    if not dist.is_available():
        return ALONE
    if not dist.is_initialized():
        if int(os.environ.get("WORLD_SIZE", "1")) < 2 or "MASTER_ADDR" not in os.environ:
            return ALONE
        try:
            dist.init_process_group("gloo", timeout=_RENDEZVOUS)
        except (RuntimeError, ValueError) as error:
            first = str(error).splitlines()[0]
            raise SeqPruneError(f"the processes did not find each other ({first}): start them with torchrun") from error
    if dist.get_world_size() == 1:
        return ALONE
    return Processes(dist.new_group(backend="gloo", timeout=_PATIENCE))


def share(images: LabelledImages, ranks: Ranks) -> LabelledImages:
    """A process's batches."""
    return images if ranks.count == 1 else every(images, ranks.rank, ranks.count)
