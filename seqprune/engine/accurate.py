"""The preset ``accurate``: a detector's whole network to a target, and everything fitted anew."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from seqprune.budget.second_order import choose_globally
from seqprune.budget.spread import Budget
from seqprune.budget.surgeon import RIDGE
from seqprune.budget.target import Target, measured_share, price_of
from seqprune.graph.channels import ChannelGraph
from seqprune.observe.batch import LabelledImages
from seqprune.observe.extract import Progress
from seqprune.observe.forward import Forward
from seqprune.observe.inputs import as_input
from seqprune.observe.patches import readable
from seqprune.observe.relevance import Relevance, relevance_of
from seqprune.observe.stages import stages_of
from seqprune.observe.streaming import BlockStream
from seqprune.plan import PrunePlan
from seqprune.repair.recover import Recover, Repair, recover
from seqprune.repair.refit import refit
from seqprune.yolo.data.images import FileImages
from seqprune.yolo.files.networks import is_fixed
from seqprune.yolo.task.judge import judge_for
from seqprune.yolo.task.probe import probe_for

WEIGHED_RIDGE = 0.3
"""Ridge of choice and fit where positions are weighed: few hold most of the weight, and they are fewer than they
look. Between 0.003 and 0.3 detections of held-out images came closer with every step, at 1 they went away again."""


def relevance_for(
    model: nn.Module, images: FileImages, forward: Forward | None = None, progress: Progress | None = None
) -> Relevance | None:
    """Where errors matter to what a detector detects; ``None`` of a model that cannot be asked."""
    found = probe_for(model, images, len(images.names))
    if found is None:
        return None
    copy, probe = found
    names = [name for name, module in model.named_modules() if readable(module)]
    return relevance_of(copy, names, images, probe, forward=forward, progress=progress)


def accurate_plan(
    original: nn.Module,
    graph: ChannelGraph,
    images: FileImages,
    target: Target,
    *,
    imgsz: int,
    round_to: int,
    protect: Sequence[str] = (),
    relevance: Relevance | None = None,
    forward: Forward | None = None,
    progress: Progress | None = None,
) -> PrunePlan:
    """What stays of every layer; see :func:`seqprune.budget.second_order.choose_globally`.

    ``relevance`` is that of ``images``.

    Raises:
        InputError: the target cannot be met, or nothing of that path to protect.
    """
    price = price_of(target, original, graph, imgsz)
    removed = choose_globally(
        original,
        graph,
        images,
        price,
        Budget(
            target.share,
            protect=tuple(protect),
            round_to=round_to,
            ridge=_ridge(relevance),
        ),
        forward=forward,
        progress=progress,
        share=measured_share(target, price, original, graph, imgsz),
        timed=target.kind == "latency",
        relevance=relevance,
    )
    return PrunePlan.from_removed(graph, removed)


def repaired(
    original: nn.Module,
    masked: nn.Module,
    plan: PrunePlan,
    graph: ChannelGraph,
    images: FileImages,
    way: Recover,
    *,
    streams: Sequence[BlockStream] = (),
    relevance: Relevance | None = None,
    forward: Forward | None = None,
    progress: Progress | None = None,
) -> tuple[nn.Module, tuple[Repair, ...]]:
    """The masked model after the repairs that helped on images held out from fitting.

    Args:
        original: the unpruned network.
        masked: what was pruned; changed nowhere.
        plan: what stays of it.
        graph: the channel graph of both.
        images: calibration images; one batch in eight is held out, until it is decided which repairs help.
        way: which repairs are tried.
        streams: two, which make all stages together cost about one pass; whole passes without them.
        relevance: of ``images``: where the fit has to be good.
        forward: precision, and how many images at a time.
        progress: told the number of images of every batch.
    """
    fitting, held = images.hold_out()
    stages = [
        [name for name in stage if not is_fixed(name)]
        for stage in stages_of(original, as_input(next(iter(fitting)).images[:1], original))
    ]
    stages = [stage for stage in stages if stage]
    removed = plan.removed_groups(graph)

    def fit(model: nn.Module, weights: bool, images: LabelledImages) -> None:
        for stream in streams:
            stream.reset()
        refit(
            original,
            model,
            graph,
            removed,
            images,
            stages,
            streams=(streams[0], streams[1]) if streams else None,
            weights=weights,
            forward=forward,
            progress=progress,
            relevance=relevance,
            ridge=_ridge(relevance),
        )

    judge = None if held is None else judge_for(original, held, len(images.names))
    if judge is None:
        return recover(original, masked, plan, graph, images, way, fit, forward=forward)
    return recover(original, masked, plan, graph, fitting, way, fit, judge, forward, everything=images)


def _ridge(relevance: Relevance | None) -> float:
    return RIDGE if relevance is None else WEIGHED_RIDGE


__all__ = ["accurate_plan", "relevance_for", "repaired"]
