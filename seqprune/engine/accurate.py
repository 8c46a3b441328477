"""The preset ``accurate``: a whole network to a target, and everything fitted anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from torch import nn

from seqprune.budget.second_order import choose_globally
from seqprune.budget.spread import Budget
from seqprune.budget.surgeon import RIDGE
from seqprune.budget.target import Target, measured_share, meeting, price_of
from seqprune.engine.task import Task
from seqprune.errors import InputError
from seqprune.graph.channels import BoolArray, ChannelGraph
from seqprune.graph.copying import copied
from seqprune.observe.batch import Batch, LabelledImages, every, images_in
from seqprune.observe.extract import Progress
from seqprune.observe.forward import Forward
from seqprune.observe.ranks import ALONE, Ranks
from seqprune.observe.reading import Reading, reading_of
from seqprune.observe.relevance import Relevance, relevance_of
from seqprune.observe.stages import stages_of
from seqprune.observe.streaming import BlockStream
from seqprune.plan import PrunePlan
from seqprune.repair.recover import Keep, Recover, Repair, recover
from seqprune.repair.refit import refit
from seqprune.runtimes.layers import Timing

ENOUGH = 64
"""Images, about, that a fit is tried with."""
WEIGHED_RIDGE = 0.3
"""Ridge of choice and fit where positions are weighed: few hold most of the weight, and they are fewer than they
look. Between 0.003 and 0.3 detections of held-out images came closer with every step, at 1 they went away again."""


def relevance_for(
    model: nn.Module,
    task: Task,
    reading: Reading,
    forward: Forward | None = None,
    progress: Progress | None = None,
    ranks: Ranks = ALONE,
) -> Relevance | None:
    """Where errors matter to what a network returns; ``None`` of one that cannot be asked."""
    found = task.probe(model)
    if found is None:
        return None
    copy, probe = found
    return relevance_of(
        *(copy, reading.names, task.images, probe),
        forward=forward,
        progress=progress,
        reading=reading,
        pooled=task.classifies,
        ranks=ranks,
    )


def accurate_plan(
    original: nn.Module,
    graph: ChannelGraph,
    task: Task,
    target: Target,
    *,
    round_to: int,
    protect: Sequence[str] = (),
    relevance: Relevance | None = None,
    reading: Reading | None = None,
    forward: Forward | None = None,
    progress: Progress | None = None,
    timing: Timing | None = None,
    ranks: Ranks = ALONE,
) -> PrunePlan:
    """What stays of every layer; see :func:`seqprune.budget.second_order.choose_globally`.

    ``relevance`` is that of the task's images; ``timing`` measures where the target is time, in the first process.

    Raises:
        InputError: the target cannot be met, or nothing of that path to protect, or no layer is read.
    """
    if reading is not None and not reading.names:
        why = next((f" ({name}: {why})" for name, why in reading.left_out.items()), "")
        raise InputError(f"preset accurate can read no layer of this network{why}: choose preset fast")
    example = task.example(original)
    price = price_of(target, original, graph, example, timing, ranks)
    removed = choose_globally(
        original,
        graph,
        task.images,
        price,
        Budget(
            target.share,
            protect=tuple(protect),
            round_to=round_to,
            ridge=_ridge(relevance),
            of=target.of,
        ),
        forward=forward,
        progress=progress,
        share=measured_share(target, price, original, graph, example),
        meet=None if timing is None else meeting(target, original, graph, timing),
        relevance=relevance,
        reading=reading,
        ranks=ranks,
    )
    return PrunePlan.from_removed(graph, removed)


def repaired(
    original: nn.Module,
    masked: nn.Module,
    plan: PrunePlan,
    graph: ChannelGraph,
    task: Task,
    way: Recover,
    *,
    streams: Sequence[BlockStream] = (),
    relevance: Relevance | None = None,
    reading: Reading | None = None,
    forward: Forward | None = None,
    progress: Progress | None = None,
    keep: Keep | None = None,
    part: Callable[[int, int, int], None] = lambda _number, _parts, _images: None,
    ranks: Ranks = ALONE,
) -> tuple[nn.Module, tuple[Repair, ...]]:
    """The masked model after the repairs that helped on images held out from fitting.

    Args:
        original: the unpruned network.
        masked: what was pruned; changed nowhere.
        plan: what stays of it.
        graph: the channel graph of both.
        task: whose images are fitted to; one batch in eight is held out, until it is decided which repairs help.
        way: which repairs are tried.
        streams: two, which make all stages together cost about one pass; whole passes without them.
        relevance: of these images: where the fit has to be good.
        reading: which layers can be read; looked at where it is left out.
        forward: precision, and how many images at a time.
        progress: told the number of images of every batch.
        keep: where findings are kept.
        part: told which part of a fit begins, of how many, and the images that it looks at.
        ranks: the processes that share the images; the first judges for all.
    """
    fitting, held = task.images.hold_out()
    about = (original, plan, graph, task, fitting, streams, relevance, reading, forward, progress)
    fit = _fit_of(*about, part, ranks)
    judge = None if held is None else task.judge(original, held)
    if judge is None:
        return recover(original, masked, plan, graph, task.images, way, fit, forward=forward, keep=keep)

    def judged(model: nn.Module) -> float:
        return ranks.first(partial(judge, model))

    return recover(original, masked, plan, graph, fitting, way, fit, judged, forward, task.images, keep)


def quickly(
    original: nn.Module,
    masked: nn.Module,
    plan: PrunePlan,
    graph: ChannelGraph,
    task: Task,
    *,
    streams: Sequence[BlockStream] = (),
    relevance: Relevance | None = None,
    reading: Reading | None = None,
    forward: Forward | None = None,
) -> nn.Module:
    """The masked model fitted to some of the images that are not held out, through no activation: enough to compare."""
    fitting, _ = task.images.hold_out()
    step = max(1, len(fitting) * next(iter(fitting)).count // ENOUGH)
    fit = _fit_of(original, plan, graph, task, fitting, streams, relevance, reading, forward, None)
    model = copied(masked)
    fit(model, True, every(fitting, 0, step), 0, lambda _stages: None, True)
    return model


def _fit_of(
    original: nn.Module,
    plan: PrunePlan,
    graph: ChannelGraph,
    task: Task,
    fitting: LabelledImages,
    streams: Sequence[BlockStream],
    relevance: Relevance | None,
    reading: Reading | None,
    forward: Forward | None,
    progress: Progress | None,
    part: Callable[[int, int, int], None] = lambda _number, _parts, _images: None,
    ranks: Ranks = ALONE,
) -> _Fit:
    """See :func:`repaired`; ``fitting`` are the images to begin with."""
    known = reading or reading_of(original, next(iter(fitting)))
    stages = _stages(original, task, known, next(iter(fitting)), streams)
    removed = plan.removed_groups(graph)
    return _Fit(original, graph, removed, stages, streams, relevance, known, forward, progress, part, ranks)


def _stages(
    original: nn.Module, task: Task, reading: Reading, first: Batch, streams: Sequence[BlockStream]
) -> list[list[str]]:
    """Layers that are fitted together, front to back."""
    blocks = (stream.blocks.block_of for stream in streams[:1])
    stages = (
        [name for name in stage if name in reading.names and not task.is_fixed(name)]
        for stage in stages_of(original, first.input(original, slice(1)), *blocks)
    )
    return [stage for stage in stages if stage]


@dataclass(frozen=True)
class _Fit:
    """See :class:`seqprune.repair.recover.Fit`."""

    original: nn.Module
    graph: ChannelGraph
    removed: BoolArray
    stages: Sequence[Sequence[str]]
    streams: Sequence[BlockStream]
    relevance: Relevance | None
    reading: Reading
    forward: Forward | None
    progress: Progress | None
    part: Callable[[int, int, int], None]
    ranks: Ranks

    def __call__(
        self,
        model: nn.Module,
        weights: bool,
        images: LabelledImages,
        start: int,
        on_stage: Callable[[int], None],
        quick: bool,
    ) -> None:
        for stream in self.streams:
            stream.reset()
        looked = images_in(images)

        def done(parts: int) -> None:
            on_stage(parts)
            begin(parts)

        def begin(parts: int) -> None:
            if parts < len(self.stages):
                self.part(parts + 1, len(self.stages), looked)

        begin(start)
        refit(
            *(self.original, model, self.graph, self.removed, images, self.stages),
            streams=(self.streams[0], self.streams[1]) if self.streams else None,
            weights=weights,
            bends=not quick,
            forward=self.forward,
            progress=self.progress,
            relevance=self.relevance,
            reading=self.reading,
            ridge=_ridge(self.relevance),
            start=start,
            on_stage=done,
            ranks=self.ranks,
        )


def _ridge(relevance: Relevance | None) -> float:
    return RIDGE if relevance is None else WEIGHED_RIDGE


__all__ = ["accurate_plan", "relevance_for", "repaired"]
