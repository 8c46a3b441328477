"""Which moves bring a network to its target: channels leave, convolutions become pairs, blocks leave whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

from torch import nn

from seqprune.budget.factoring import observe, share_left
from seqprune.budget.meet import FAR
from seqprune.budget.spread import protected
from seqprune.budget.target import Target
from seqprune.engine.accurate import accurate_plan
from seqprune.engine.engine import Chosen, Engine
from seqprune.engine.held import judge_of
from seqprune.engine.leaving import without_blocks
from seqprune.engine.presets import Way
from seqprune.engine.steps import StepReport, reports
from seqprune.engine.task import Judge
from seqprune.errors import TargetError
from seqprune.graph.factor import Factor, factorable, factored, full_rank
from seqprune.observe.relevance import Relevance
from seqprune.plan import PrunePlan
from seqprune.select.layers import block_of
from seqprune.surgery import mask

LEAST_OF_PAIRS = 0.6
"""Share of the cost that pairs leave before channels leave too, where both may: down to it channels add nothing."""
LEAST_OF_TIME = 0.7
"""The same of the time, of which layers take some however little they compute."""
MOST_OF_LAYERS = 0.5
"""Share of the cost of the convolutions which can be pairs that pairs take before channels leave too."""


@dataclass(frozen=True)
class Decided:
    """
    Attributes:
        engine: what repairs the network: its graph is that of the chosen one, its original is named alike.
        chosen: what stays, before any repair.
        relevance: by the names of both.
    """

    engine: Engine
    chosen: Chosen
    relevance: Relevance | None


def decide(
    engine: Engine,
    way: Way,
    *,
    round_to: int,
    protect: Sequence[str] = (),
    seed: int = 0,
    relevance: Relevance | None = None,
    compared: bool = True,
) -> Decided:
    """The whole network to the target of ``way``, by its moves.

    Args:
        engine: of the unpruned network.
        way: the target, and which moves are allowed.
        round_to: widths are a multiple of it.
        protect: module paths that stay whole.
        seed: of every random choice.
        relevance: where errors matter, from the engine's images.
        compared: whether time is brought down by more pairs and by fewer, and the better kept. What a pair saves hangs
            on the runtime: in one that starts slowly it may save nothing, however few channels are between.

    Raises:
        InputError: nothing of a path to protect.
        TargetError: the target cannot be met by them.
    """
    assert way.target is not None  # noqa: S101 - the other ways are front to back
    if way.target.share >= 1:  # the size of the images does it
        return Decided(engine, Chosen(PrunePlan((), engine.graph.inputs), engine.original, ()), relevance)
    if "blocks" in way.by:

        def rest(inner: Engine, left: Way) -> tuple[Engine, Chosen, Relevance | None]:
            found = decide(inner, left, round_to=round_to, protect=protect, seed=seed, relevance=relevance)
            return found.engine, found.chosen, found.relevance

        made = without_blocks(engine, way, rest, protect, relevance)
        return Decided(made.engine, made.chosen, made.relevance)
    can = "channels" not in way.by or factorable(engine.original)
    if "factors" not in way.by or not can:
        chosen = engine.to_target(way, round_to=round_to, protect=protect, seed=seed, relevance=relevance)
        return Decided(engine, chosen, relevance)
    protected(engine.graph, protect)  # says where there is nothing of that path
    make = _Pairs(engine, way, way.target, round_to, protect, relevance)
    judge = judge_of(engine) if compared and engine.watch is not None and "channels" in way.by else None
    return make.to(make.most) if judge is None else make.best(judge)


class _Pairs:
    """Pairs first, then channels, where these may leave and pairs have gone as far as they lose less.

    Attributes:
        most: share of the cost to which pairs go.
    """

    def __init__(
        self,
        engine: Engine,
        way: Way,
        target: Target,
        round_to: int,
        protect: Sequence[str],
        relevance: Relevance | None,
    ) -> None:
        self.engine, self.way, self.target = engine, way, target
        self.how: dict[str, Any] = {"round_to": round_to, "protect": protect}
        self.relevance, self.mixed = relevance, "channels" in way.by
        self.watched: dict[str, Any] = {"forward": engine.forward, "progress": engine.told.progress}
        self.watched |= {"ranks": engine.ranks, "timing": engine.watch}
        engine.told.stage("observe", engine.images.image_count)
        self.example = engine.task.example(engine.original)
        about = (engine.original, engine.images, target.kind, self.example, engine.reading)
        self.factoring = observe(*about, protect=protect, relevance=relevance, **self.watched)
        least = LEAST_OF_PAIRS if engine.watch is None else LEAST_OF_TIME
        least = max(least, 1 - MOST_OF_LAYERS * self.factoring.share(self.example))
        self.most = max(target.share, least) if self.mixed else target.share

    def best(self, judge: Judge) -> Decided:
        """With as many pairs as there may be, with half of what they save, or with none: what changes outputs least."""
        found: list[tuple[float, Decided]] = []
        refused: TargetError | None = None
        for share in (self.most, (1 + self.most) / 2, 1.0):
            self.engine.told.stage(f"try pairs that leave {share:.0%} of the time", None)
            try:
                made = self.to(share, self.engine.aside())
            except TargetError as error:
                refused = error
                continue
            loss = partial(self._loss, judge, made)
            name = f"pairs-to-{share:.4f}"
            found.append((self.engine.ranks.first(partial(self.engine.state.number, name, loss)), made))
        if not found:
            raise refused or TargetError("nothing meets the target")
        _, made = min(found, key=lambda each: each[0])
        for step in made.chosen.steps:
            self.engine.told.step(step)
        return replace(made, engine=replace(made.engine, told=self.engine.told, state=self.engine.state))

    def _loss(self, judge: Judge, made: Decided) -> float:
        return judge(made.engine.tried(made.chosen, made.relevance))

    def to(self, share: float, engine: Engine | None = None) -> Decided:
        """Pairs down to a share of the cost, and what is left to the target by channels."""
        engine = engine or self.engine
        whole, target, timed = engine.original, self.target, engine.watch is not None
        if share >= 1:
            return Decided(engine, engine.to_target(self.way, **self.how, relevance=self.relevance), self.relevance)
        engine.told.stage("factor", None)
        made = self.factoring.to_target(
            Target(target.kind, share), self.example, self.how["round_to"], self.mixed, engine.ranks
        )
        prove(engine, made.factors)
        graph = engine.task.trace(made.model)
        plan = PrunePlan((), graph.inputs)
        left = engine.ranks.first(partial(share_left, whole, made.model, target.kind, self.example, engine.watch))
        if self.mixed and left > target.share * (1 + FAR if timed else 1):
            between = engine.aside(original=made.model, graph=graph)  # warnings were said of the whole network
            about: dict[str, Any] = self.how | self.watched
            about |= {"relevance": between.weigh_errors(), "reading": between.reading}
            rest = target.of_the_rest(target.share / left)
            plan = accurate_plan(made.model, graph, engine.task, rest, **about)
        steps = (*pairs(whole, made.factors, plan), *_beside(reports(graph, plan), made.factors))
        for step in steps:
            engine.told.step(step)
        chosen = Chosen(replace(plan, factors=made.factors), mask(made.model, plan, graph), steps)
        return Decided(replace(engine, original=made.reference, graph=graph), chosen, made.relevance)


def prove(engine: Engine, factors: Sequence[Factor]) -> None:
    """
    Raises:
        VerificationError: the network with these blocks as pairs, and as many channels between as it takes, computes
            something else than the network as it was.
    """
    convolutions = factorable(engine.original)
    whole = []
    for each in factors:
        conv = cast(nn.Conv2d, engine.original.get_submodule(convolutions[each.block]))
        whole.append(replace(each, rank=full_rank(conv, each.first)))
    inputs = next(iter(engine.images)).input(engine.original, slice(1))
    engine.task.prove(engine.original, factored(engine.original, whole), inputs)


def pairs(model: nn.Module, factors: Sequence[Factor], plan: PrunePlan) -> tuple[StepReport, ...]:
    """One report for every convolution of ``model`` that was made of two, front to back: its channels between, those
    that ``plan`` leaves, out of as many as leave it as it was.
    """
    convolutions, found = factorable(model), []
    for factor in factors:
        rank = len(plan.keep.get(f"{factor.block}.0", range(factor.rank)))
        conv = cast(nn.Conv2d, model.get_submodule(convolutions[factor.block]))
        most = full_rank(conv, factor.first)
        found.append(
            StepReport(
                layer=f"{factor.block}.0",
                block=block_of(factor.block),
                channels=most,
                active_before=most,
                active_after=rank,
                k=rank,
                members=(f"{factor.block}.0",),
                reason="one convolution made of two: channels between them, of as many as leave it as it was",
            )
        )
    return tuple(found)


def _beside(steps: Iterable[StepReport], factors: Sequence[Factor]) -> Iterator[StepReport]:
    """Reports of the layers that were there before."""
    between = {f"{factor.block}.0" for factor in factors}
    return (step for step in steps if step.layer not in between)
