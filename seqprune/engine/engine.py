"""What is done to one network with one set of images: errors are weighed, channels chosen, and the rest repaired."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import nn

from seqprune.engine.accurate import accurate_plan, quickly, relevance_for, repaired
from seqprune.engine.along import Along
from seqprune.engine.fast import fast_plan
from seqprune.engine.findings import (
    done_as_tensors,
    done_of_tensors,
    relevance_as_tensors,
    relevance_of_tensors,
)
from seqprune.engine.listener import Listener
from seqprune.engine.presets import Way
from seqprune.engine.sequential import prune_sequentially
from seqprune.engine.state import State, give
from seqprune.engine.steps import Done, Settings, StepReport, reports
from seqprune.engine.stopwatch import Stopwatch
from seqprune.engine.task import Task
from seqprune.graph.channels import ChannelGraph
from seqprune.graph.copying import copied
from seqprune.observe.batch import Images
from seqprune.observe.forward import Forward
from seqprune.observe.ranks import ALONE, Ranks
from seqprune.observe.reading import Reading, reading_of
from seqprune.observe.relevance import Relevance
from seqprune.observe.scratch import remove_leftovers
from seqprune.observe.shelf import CACHE_BYTES
from seqprune.observe.streaming import BlockStream
from seqprune.plan import PrunePlan
from seqprune.repair.recover import Recover, Repair
from seqprune.surgery import mask, masker

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
        state: what was found so far.
        ranks: the processes that share the images.
        watch: measures, where the target is time.
    """

    original: nn.Module
    graph: ChannelGraph
    task: Task
    streams: tuple[BlockStream, ...] = ()
    forward: Forward = field(default_factory=Forward)
    told: Listener = field(default_factory=Listener)
    state: State = field(default_factory=State)
    ranks: Ranks = ALONE
    watch: Stopwatch | None = None

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
        known = self.state.read_tensors("weighed")
        if known is not None:
            return None if known[1] == "unknown" else relevance_of_tensors(known[0])
        self.told.stage("weigh errors", self.images.image_count)
        relevance = relevance_for(self.original, self.task, self.reading, self.forward, self.told.progress, self.ranks)
        if relevance is None:
            self.told.warning(
                "what an error does in the end cannot be followed back through this network: all errors count alike, "
                "and more accuracy is lost than could be"
            )
        tensors = {} if relevance is None else relevance_as_tensors(relevance)
        self.state.write_tensors("weighed", tensors, "unknown" if relevance is None else "known")
        return relevance

    def front_to_back(
        self,
        names: Sequence[str],
        classes: int,
        settings: Settings,
        *,
        after_step: AfterStep | None = None,
        ranks: Ranks = ALONE,
        along: Along | None = None,
    ) -> Chosen:
        """Layer after layer, each seen behind those pruned before it; see :mod:`seqprune.engine.sequential`."""
        model, done = self._so_far()
        images = self.images.image_count * (2 if settings.match == "each" else 1)

        def begin(layers: int) -> None:
            if layers < len(names):
                self.told.stage(f"observe: layer {layers + 1} of {len(names)}", images)

        if settings.match == "once" and (done is None or done.matched is None):
            self.told.stage("observe: find objects", images)
        else:
            begin(0 if done is None else len(done.steps))

        weights: dict[str, torch.Tensor] = {}
        latest = [model]

        def keep(now: Done) -> None:
            if along is not None and along.every and now.steps and now.steps[-1].removed:
                along.after(now.steps[-1].layer, latest[0])
            tensors, about = done_as_tensors(now)
            self.state.write_tensors("steps", tensors | weights, about)
            begin(len(now.steps))

        def trained(now: nn.Module, plan: PrunePlan) -> nn.Module:
            after = now if after_step is None else after_step(now, plan)
            weights.update({f"model:{name}": tensor for name, tensor in after.state_dict().items()})
            latest[0] = after
            return after

        plan, masked, steps = prune_sequentially(
            model,
            self.graph,
            names,
            self.images,
            classes,
            settings=settings,
            predict=self.task.predict,
            on_step=self.told.step,
            progress=self.told.progress,
            after_step=trained if after_step else None,
            stream=next(iter(self.streams), None),
            forward=self.forward,
            ranks=ranks,
            done=done,
            keep=keep,
        )
        return Chosen(plan, masked, tuple(steps))

    def _so_far(self) -> tuple[nn.Module, Done | None]:
        """The network as an earlier run left it, and what that decided."""
        model, known = copied(self.original), self.state.read_tensors("steps")
        if known is None:
            return model, None
        done = done_of_tensors(*known)
        for step in done.steps:
            self.told.step(step)
        masker(PrunePlan.from_removed(self.graph, done.removed), self.graph)(model)
        weights = {key.partition(":")[2]: t for key, t in known[0].items() if key.startswith("model:")}
        if weights:  # trained between the layers
            give(model, weights)
        return model, done

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
        known = self.state.read_plain("plan")
        if known is None:
            plan = self._ordered(way, round_to, protect, seed, relevance)
            self.state.write_plain("plan", plan.to_json())
        else:
            plan = PrunePlan.from_json(known)
        steps = tuple(reports(self.graph, plan))
        for step in steps:
            self.told.step(step)
        return Chosen(plan, mask(self.original, plan, self.graph), steps)

    def _ordered(
        self, way: Way, round_to: int, protect: Sequence[str], seed: int, relevance: Relevance | None
    ) -> PrunePlan:
        """What stays of the whole network."""
        assert way.target is not None  # noqa: S101 - the other ways are front to back
        about = (self.original, self.graph, self.task, way.target)
        if way.criterion is not None:
            self.told.stage(f"score by {way.criterion}", None)
            how: dict[str, Any] = {"protect": protect, "round_to": round_to, "seed": seed, "timing": self.watch}
            plan: PrunePlan = self.ranks.first(partial(fast_plan, *about, way.criterion, **how))
            return plan
        self.told.stage("observe", self.images.image_count)
        return accurate_plan(
            *about,
            protect=protect,
            round_to=round_to,
            relevance=relevance,
            reading=self.reading,
            forward=self.forward,
            progress=self.told.progress,
            ranks=self.ranks,
            timing=self.watch,
        )

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
            keep=self.state,
            part=lambda number, parts, images: self.told.stage(f"recover: part {number} of {parts}", images),
            ranks=self.ranks,
        )

    def tried(self, chosen: Chosen, relevance: Relevance | None = None) -> nn.Module:
        """The masked network after a quick fit, to be compared with others."""
        return quickly(
            *(self.original, chosen.masked, chosen.plan, self.graph, self.task),
            streams=self.streams,
            relevance=relevance,
            reading=self.reading,
            forward=self.forward,
        )

    def aside(self, **changed: Any) -> Engine:
        """The same for a try, with what is ``changed``: it says how far it is and no more, and keeps nothing."""
        quiet = replace(self, told=Listener(progress=self.told.progress), state=State())
        return replace(quiet, **changed)

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
    remove_leftovers(warn)
    structure = task.blocks(model) if cache_bytes else None
    return () if structure is None else tuple(BlockStream(structure, cache_bytes, half, warn) for _ in range(2))
