"""Blocks left out whole, where that brings a network to its target better than the other moves alone do.

Every block that may be left out is left out alone, everything behind it fitted anew, and the outputs of images held out
are compared with the unpruned network's: those that change them least for what they save come first. With more and more
of them left out the other moves go the rest of the way to the target, and what comes out is compared in the same way;
the first that does not help is the last that is tried.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256

from seqprune.budget.factoring import share_left
from seqprune.budget.spread import protected
from seqprune.budget.target import Target
from seqprune.engine.engine import Chosen, Engine
from seqprune.engine.held import judge_of
from seqprune.engine.presets import Way
from seqprune.engine.steps import StepReport
from seqprune.engine.task import Judge
from seqprune.errors import LostError, SeqPruneError, TargetError
from seqprune.graph.channels import ChannelGraph
from seqprune.graph.factor import aligned
from seqprune.graph.leaving import left_out, merge, removable
from seqprune.graph.values import NETWORK_FAILS
from seqprune.observe.relevance import Relevance
from seqprune.observe.streaming import BlockStream
from seqprune.plan import PrunePlan
from seqprune.select.layers import block_of


@dataclass(frozen=True)
class Left:
    """A network without some blocks, and the other moves made in it.

    Attributes:
        blocks: their paths.
        engine: of the network without them.
        chosen: what stays of that.
        relevance: by the names of both.
    """

    blocks: tuple[str, ...]
    engine: Engine
    chosen: Chosen
    relevance: Relevance | None


Rest = Callable[[Engine, Way], tuple[Engine, Chosen, Relevance | None]]
"""Brings a network to a target by the other moves."""


def without_blocks(engine: Engine, way: Way, rest: Rest, protect: Sequence[str], relevance: Relevance | None) -> Left:
    """The network to the target of ``way``, with those blocks left out that are worth it.

    Raises:
        InputError: nothing of a path to protect.
        TargetError: blocks alone do not meet the target.
    """
    return _Leaving(engine, way, rest, relevance).best(protect)


@dataclass(frozen=True)
class _Leaving:
    engine: Engine
    way: Way
    rest: Rest
    relevance: Relevance | None

    @property
    def others(self) -> tuple[str, ...]:
        return tuple(move for move in self.way.by if move != "blocks")

    @property
    def target(self) -> Target:
        assert self.way.target is not None  # noqa: S101 - only a preset with a target has moves
        return self.way.target

    def best(self, protect: Sequence[str]) -> Left:
        protected(self.engine.graph, protect)  # says where there is nothing of that path
        judge = judge_of(self.engine)
        if judge is None and self.others:
            self.engine.told.warning("no block is left out: that is judged by images held out, and there are too few")
            return self._told(self._with((), self.target.share))
        order = self._order(protect, judge)
        if not self.others:
            return self._alone(order)
        self.engine.told.stage("try with all blocks", None)
        best = self._with((), self.target.share)
        loss = self._loss(best, judge)
        for number, (block, least) in enumerate(order, 1):
            if least >= loss:
                continue  # it alone does more harm than all the rest
            tried = self._tried((*best.blocks, block), judge, number) if _apart(block, best.blocks) else None
            if tried is None:
                continue
            if tried[1] >= loss:
                break
            best, loss = tried
        return self._told(best)

    def _order(self, protect: Sequence[str], judge: Judge | None) -> list[tuple[str, float]]:
        """Blocks and their losses alone, those first that lose least for what they save."""
        model = self.engine.original
        inputs = self.engine.task.example(model)
        spared = tuple(f"{path.rstrip('.')}." for path in protect)
        can = removable(model, inputs if isinstance(inputs, tuple) else (inputs,))
        free = [
            block
            for block in can
            if not any(f"{block}.".startswith(path) or path.startswith(f"{block}.") for path in spared)
        ]
        whole = 0.0 if judge is None else self._number((), "itself", lambda: judge(model))
        found = []
        for number, block in enumerate(free, 1):
            self.engine.told.stage(f"leave out {block}: {number} of {len(free)}", None)
            try:
                saved = 1 - self._share((block,))
                loss = self._number((block,), "alone", partial(self._alone_loss, block, judge)) - whole
            except LostError:
                raise
            except (SeqPruneError, *NETWORK_FAILS):
                continue  # code of its own asks for it
            if saved > 0:
                found.append((loss / saved, block, loss + whole))
        return [(block, loss) for _, block, loss in sorted(found)]

    def _alone_loss(self, block: str, judge: Judge | None) -> float:
        """Of the network without one block: what its channels have to do with each other is as it was."""
        chosen = Chosen(PrunePlan((), self.engine.graph.inputs), left_out(self.engine.original, (block,)), ())
        return 0.0 if judge is None else judge(self.engine.tried(chosen, self.relevance))

    def _alone(self, order: Sequence[tuple[str, float]]) -> Left:
        """With as few blocks as meet the target."""
        out: tuple[str, ...] = ()
        for block, _ in order:
            if _apart(block, out):
                out = (*out, block)
                if self._share(out) <= self.target.share:
                    return self._told(self._with(out, 1.0))
        left = self._share(out)
        raise TargetError(
            f"blocks alone do not bring this network to {self.target.kind}={self.target.share:g}: without the "
            f"{len(out)} that may be left out {left:.0%} remain; let channels go too, or take a greater target"
        )

    def _tried(self, blocks: tuple[str, ...], judge: Judge | None, number: int) -> tuple[Left, float] | None:
        """Without these blocks at the target, and the loss of that; ``None`` where it cannot be met so."""
        self.engine.told.stage(f"try without {len(blocks)} blocks: {number}", None)
        try:
            left = self._with(blocks, self.target.share / self._share(blocks))
        except LostError:
            raise
        except SeqPruneError:
            return None
        return left, self._loss(left, judge)

    def _with(self, blocks: tuple[str, ...], share: float) -> Left:
        """Without these blocks, and brought to a share of what they leave by the other moves; nothing is fitted."""
        whole = self.engine
        model = left_out(whole.original, blocks)
        graph = whole.task.trace(model) if blocks else whole.graph
        engine = whole.aside(original=model, graph=graph, streams=self._streams(blocks))
        chosen, relevance = Chosen(PrunePlan((), graph.inputs), model, ()), self.relevance
        if share < 1:
            way = replace(self.way, by=self.others, target=self.target.of_the_rest(share))
            engine, chosen, relevance = self.rest(engine, way)
        chosen = replace(chosen, plan=replace(chosen.plan, blocks=blocks))
        original = aligned(whole.original, chosen.plan.factors)
        return Left(blocks, replace(engine, original=original, state=whole.state), chosen, relevance)

    def _share(self, blocks: tuple[str, ...]) -> float:
        model = self.engine.original
        if not blocks:
            return 1.0
        small = left_out(model, blocks)
        merge(small, blocks)
        return share_left(model, small, self.target.kind, self.engine.task.example(model), self.engine.watch)

    def _streams(self, blocks: tuple[str, ...]) -> tuple[BlockStream, ...]:
        """None where outputs are kept of parts of a block that is left out: what is behind reads others then."""
        units = [path for stream in self.engine.streams for path in getattr(stream.blocks, "paths", ())]
        inside = any(path.startswith(f"{block}.") for block in blocks for path in units)
        return () if inside else self.engine.streams

    def _loss(self, left: Left, judge: Judge | None) -> float:
        """Found now or by an earlier run."""

        def find() -> float:
            return 0.0 if judge is None else judge(left.engine.tried(left.chosen, left.relevance))

        return self._number(left.blocks, "rest", find)

    def _number(self, blocks: tuple[str, ...], what: str, find: Callable[[], float]) -> float:
        name = sha256(" ".join(blocks).encode()).hexdigest()[:16]
        return self.engine.state.number(f"without-{what}-{name}", find)

    def _told(self, left: Left) -> Left:
        """The same with its steps, told to who is listening."""
        steps = (*(_step(self.engine.graph, block) for block in left.blocks), *left.chosen.steps)
        for step in steps:
            self.engine.told.step(step)
        return replace(
            left, engine=replace(left.engine, told=self.engine.told), chosen=replace(left.chosen, steps=steps)
        )


def _apart(block: str, others: Sequence[str]) -> bool:
    """Whether it lies in none of the others, and none in it."""
    return not any(f"{block}.".startswith(f"{o}.") or f"{o}.".startswith(f"{block}.") for o in others)


def _step(graph: ChannelGraph, block: str) -> StepReport:
    """All output channels in a block, none of which stays."""
    inside = [layer for layer in graph.all_layers if layer.name.startswith(f"{block}.")]
    channels = sum(layer.channels for layer in inside)
    return StepReport(
        layer=block,
        block=block_of(block),
        channels=channels,
        active_before=channels,
        active_after=0,
        reason="left out whole: what reads it is fitted to do without",
        members=(block,),
    )
