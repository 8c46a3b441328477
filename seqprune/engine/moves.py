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
from seqprune.engine.leaving import without_blocks
from seqprune.engine.presets import Way
from seqprune.engine.state import State
from seqprune.engine.steps import StepReport, reports
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
) -> Decided:
    """The whole network to the target of ``way``, by its moves.

    Raises:
        InputError: the target cannot be met by them, or nothing of a path to protect.
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
    return _paired(engine, way, way.target, round_to, protect, relevance)


def _paired(
    engine: Engine,
    way: Way,
    target: Target,
    round_to: int,
    protect: Sequence[str],
    relevance: Relevance | None,
) -> Decided:
    """Pairs first, then channels, where these may leave and pairs have gone as far as they lose less."""
    whole, told = engine.original, engine.told
    watched: dict[str, Any] = {"forward": engine.forward, "progress": told.progress, "ranks": engine.ranks}
    told.stage("observe", engine.images.image_count)
    example = engine.task.example(whole)
    watched |= {"timing": engine.watch}
    factoring = observe(
        whole, engine.images, target.kind, example, engine.reading, protect=protect, relevance=relevance, **watched
    )
    told.stage("factor", None)
    mixed, least = "channels" in way.by, LEAST_OF_PAIRS if engine.watch is None else LEAST_OF_TIME
    if mixed:
        least = max(least, 1 - MOST_OF_LAYERS * factoring.share(example))
    aim = Target(target.kind, max(target.share, least)) if mixed else target
    made = factoring.to_target(aim, example, round_to, mixed, engine.ranks)
    prove(engine, made.factors)
    graph = engine.task.trace(made.model)
    plan = PrunePlan((), graph.inputs)
    left = engine.ranks.first(partial(share_left, whole, made.model, target.kind, example, engine.watch))
    if mixed and left > target.share * (1 if engine.watch is None else 1 + FAR):
        between = replace(engine, original=made.model, graph=graph, state=State())
        rest = Target(target.kind, target.share / left)
        plan = accurate_plan(
            *(made.model, graph, engine.task, rest),
            round_to=round_to,
            protect=protect,
            relevance=between.weigh_errors(),
            reading=between.reading,
            **watched,
        )
    steps = (*pairs(whole, made.factors, plan), *_beside(reports(graph, plan), made.factors))
    for step in steps:
        told.step(step)
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
