"""One process, or several under ``torchrun`` that each look at their share of the images.

Every batch is looked at by one process. What was seen of it is gathered and added up by all of them in the order of the
batches, and the first process decides: the plan is that of one process, bit for bit. The messages are vectors of
objects, a few hundred kilobytes, and go over gloo even between GPUs: it fails at once where a peer's connection ends.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist

from seqprune.aside import said_aside
from seqprune.errors import SeqPruneError
from seqprune.observe.batch import Batch, LabelledImages, every

T = TypeVar("T")
K = TypeVar("K")
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

    def swap(self, mine: Sequence[T]) -> list[T]:
        """Given something for every process, what every process gave to this one, by rank."""
        return list(mine)

    def first(self, decide: Callable[[], T]) -> T:
        """What ``decide`` returned, or the :class:`SeqPruneError` it raised, in the first process."""
        return decide()

    def rounds(self, images: LabelledImages) -> Iterator[Batch | None]:
        """This process's batches, one a round; ``None`` in the last round where only others have one."""
        mine = iter(share(images, self))
        for _ in range(-(-len(images) // self.count)):
            yield next(mine, None)

    def owns(self, number: int) -> bool:
        """Whether this process works out what has that number, of things that are worked out side by side."""
        return number % self.count == self.rank

    def joined(self, mine: Mapping[K, T]) -> dict[K, T]:
        """What all processes worked out."""
        return {key: found for part in self.gather(dict(mine)) for key, found in part.items()}


ALONE = Ranks()


class Pieces:
    """What processes see of their batches, put together by all of them in the order of the batches.

    Sums of floats hang on their order: pieces and not sums are exchanged, after every round, so that what is made of
    them is what one process makes of all batches, to the bit. Alone nothing is kept.

    Args:
        ranks: the processes.
        take: given the parts of a piece.
        numbers: by the first part of a piece, a number whose owner alone gets it; all get all where it is left out.
    """

    def __init__(self, ranks: Ranks, take: Callable[..., None], numbers: Mapping[Any, int] | None = None) -> None:
        self.ranks, self.take, self.numbers = ranks, take, numbers
        self.mine: list[list[tuple[Any, ...]]] = [[] for _ in range(ranks.count)]

    def add(self, *piece: Any) -> None:
        if self.ranks.count == 1:
            self.take(*piece)
            return
        whose = 0 if self.numbers is None else self.numbers[piece[0]] % self.ranks.count
        self.mine[whose].append(tuple(part.cpu() if isinstance(part, torch.Tensor) else part for part in piece))

    def settle(self) -> None:
        """The end of a round: every process calls it as often."""
        if self.ranks.count > 1:
            mine, self.mine = self.mine, [[] for _ in range(self.ranks.count)]
            for pieces in self.ranks.gather(mine[0]) if self.numbers is None else self.ranks.swap(mine):
                for piece in pieces:
                    self.take(*piece)


class Processes(Ranks):
    """Several processes of one gloo group."""

    def __init__(self, group: Any) -> None:
        self.group = group
        self.rank, self.count = dist.get_rank(group), dist.get_world_size(group)

    def gather(self, mine: T) -> list[T]:
        found: list[Any] = [None] * self.count
        self._call(lambda: dist.all_gather_object(found, mine, group=self.group))
        return cast("list[T]", found)

    def swap(self, mine: Sequence[T]) -> list[T]:
        found: list[Any] = [None] * self.count
        for rank in range(self.count):
            where, to = found if rank == self.rank else None, dist.get_global_rank(self.group, rank)
            self._call(partial(dist.gather_object, mine[rank], where, dst=to, group=self.group))
        return cast("list[T]", found)

    def first(self, decide: Callable[[], T]) -> T:
        message: list[Any] = [None, None]
        if self.rank == 0:
            try:
                message[0] = decide()
            except SeqPruneError as why:
                message[1] = type(why), str(why)
        self._call(lambda: dist.broadcast_object_list(message, src=0, group=self.group))
        if message[1] is not None:
            kind, said = message[1]
            raise kind(said)
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
            with said_aside():
                dist.init_process_group("gloo", timeout=_RENDEZVOUS)
        except (RuntimeError, ValueError) as error:
            first = str(error).splitlines()[0]
            raise SeqPruneError(f"the processes did not find each other ({first}): start them with torchrun") from error
        atexit.register(_leave)
    if dist.get_world_size() == 1:
        return ALONE
    with said_aside():
        group = dist.new_group(backend="gloo", timeout=_PATIENCE)
    return Processes(group)


def _leave() -> None:
    """Ends the threads of the groups; the ones that are left when the interpreter is gone abort the process."""
    if dist.is_initialized():
        dist.destroy_process_group()


def share(images: LabelledImages, ranks: Ranks) -> LabelledImages:
    """A process's batches."""
    return images if ranks.count == 1 else every(images, ranks.rank, ranks.count)


def own_device(device: torch.device, ranks: Ranks) -> torch.device:
    """The GPU that ``torchrun`` means for this process, where a GPU is asked for and there are several processes."""
    if ranks.count == 1 or device.type != "cuda":
        return device
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
