"""What is done to one network with one set of images: errors are weighed, channels chosen, and the rest repaired."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property

from torch import nn

from seqprune.engine.accurate import accurate_plan, relevance_for, repaired
from seqprune.engine.fast import fast_plan
from seqprune.engine.listener import Listener
from seqprune.engine.presets import Way
from seqprune.engine.sequential import Settings, StepReport, prune_sequentially, reports
from seqprune.engine.task import Task
from seqprune.graph.channels import ChannelGraph
from seqprune.observe.batch import Images
from seqprune.observe.forward import Forward
from seqprune.observe.ranks import ALONE, Ranks
from seqprune.observe.reading import Reading, reading_of
from seqprune.observe.relevance import Relevance
from seqprune.observe.shelf import CACHE_BYTES
from seqprune.observe.streaming import BlockStream
from seqprune.plan import PrunePlan
from seqprune.repair.recover import Recover, Repair
from seqprune.surgery import mask

AfterStep = Callable[[nn.Module, PrunePlan], nn.Module]


@dataclass(frozen=True)
class Chosen:
    """What stays, before any repair.

    Attributes:
        plan: of every layer that lost channels.
        masked: the network with the others zeroed.
        steps: a report a layer, front to back.
    """

    plan: PrunePlan
    masked: nn.Module
    steps: tuple[StepReport, ...]


@dataclass(frozen=True)
class Engine:
    """
    Attributes:
        original: the unpruned network, in inference mode; changed nowhere.
        graph: its channel graph.
        task: what is asked of it, and of its images.
        streams: see :func:`streams_for`; none runs the network from the start for every layer.
        forward: precision, and how many images at a time.
        told: what is going on.
    """

    original: nn.Module
    graph: ChannelGraph
    task: Task
    streams: tuple[BlockStream, ...] = ()
    forward: Forward = field(default_factory=Forward)
    told: Listener = field(default_factory=Listener)

    @property
    def images(self) -> Images:
        """Calibration images."""
        return self.task.images

    @cached_property
    def reading(self) -> Reading:
        """Which layers can be read, and what follows them; those that cannot are told."""
        found = reading_of(self.original, next(iter(self.images)))
        for name, why in found.left_out.items():
            self.told.warning(f"{name} is not fitted, and what it reads stays: {why}")
        return found

    def weigh_errors(self) -> Relevance | None:
        """Where errors matter to what is detected; ``None``, and a warning, of a network that cannot be asked."""
        self.told.stage("weigh errors", self.images.image_count)
        relevance = relevance_for(self.original, self.task, self.reading, self.forward, self.told.progress)
        if relevance is None:
            self.told.warning(
                "what an error does in the end cannot be followed back through this network: all errors count alike, "
                "and more accuracy is lost than could be"
            )
        return relevance

    def front_to_back(
        self,
        names: Sequence[str],
        classes: int,
        settings: Settings,
        *,
        after_step: AfterStep | None = None,
        ranks: Ranks = ALONE,
    ) -> Chosen:
        """Layer after layer, each seen behind those pruned before it; see :mod:`seqprune.engine.sequential`."""
        passes = (len(names) + 1) if settings.match == "once" else len(names) * (1 + (settings.match == "each"))
        self.told.stage("observe", passes * self.images.image_count)
        plan, masked, steps = prune_sequentially(
            deepcopy(self.original),
            self.graph,
            names,
            self.images,
            classes,
            settings=settings,
            predict=self.task.predict,
            on_step=self.told.step,
            progress=self.told.progress,
            after_step=after_step,
            stream=next(iter(self.streams), None),
            forward=self.forward,
            ranks=ranks,
        )
        return Chosen(plan, masked, tuple(steps))

    def to_target(
        self,
        way: Way,
        *,
        round_to: int,
        protect: Sequence[str] = (),
        seed: int = 0,
        relevance: Relevance | None = None,
    ) -> Chosen:
        """The whole network: by scores of its channels where the way has a criterion, else by what removal costs.

        Raises:
            InputError: the target cannot be met, or nothing of a path to protect.
        """
        assert way.target is not None  # noqa: S101 - the other ways are front to back
        about = (self.original, self.graph, self.task, way.target)
        if way.criterion is not None:
            self.told.stage(f"score by {way.criterion}", None)
            plan = fast_plan(*about, way.criterion, protect=protect, round_to=round_to, seed=seed)
        else:
            self.told.stage("observe", self.images.image_count)
            plan = accurate_plan(
                *about,
                protect=protect,
                round_to=round_to,
                relevance=relevance,
                reading=self.reading,
                forward=self.forward,
                progress=self.told.progress,
            )
        steps = tuple(reports(self.graph, plan))
        for step in steps:
            self.told.step(step)
        return Chosen(plan, mask(self.original, plan, self.graph), steps)

    def repair(
        self, chosen: Chosen, recover: Recover, relevance: Relevance | None = None
    ) -> tuple[nn.Module, tuple[Repair, ...]]:
        """The masked network after the repairs that helped, and all that were tried."""
        if recover == "none":
            return chosen.masked, ()
        self.told.stage("recover", None)
        return repaired(
            *(self.original, chosen.masked, chosen.plan, self.graph, self.task, recover),
            streams=self.streams,
            relevance=relevance,
            reading=self.reading,
            forward=self.forward,
            progress=self.told.progress,
        )

    def close(self) -> None:
        """Gives back the memory and the disk that outputs of blocks were kept in."""
        for stream in self.streams:
            stream.reset()


def streams_for(
    task: Task,
    model: nn.Module,
    cache_bytes: int = CACHE_BYTES,
    half: bool = False,
    warn: Callable[[str], None] = lambda _text: None,
) -> tuple[BlockStream, ...]:
    """Two, for a pruned network and the unpruned beside it; none without memory or an order of blocks."""
    structure = task.blocks(model) if cache_bytes else None
    return () if structure is None else tuple(BlockStream(structure, cache_bytes, half, warn) for _ in range(2))
