"""A whole network to a target: by what removal costs, ``accurate``, or by scores of its channels, ``fast``."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from seqprune.accurate import accurate_plan
from seqprune.budget import Spread, by_scores
from seqprune.criteria import COMPARABLE, scores
from seqprune.graph.channels import ChannelGraph
from seqprune.observe.batch import LabelledImages
from seqprune.observe.extract import Progress
from seqprune.observe.forward import Forward
from seqprune.observe.relevance import Relevance
from seqprune.plan import PrunePlan
from seqprune.scoring import scoring_for
from seqprune.target import Target, measured_share, price_of
from seqprune.yolo.data import FileImages


def whole_plan(
    original: nn.Module,
    graph: ChannelGraph,
    images: FileImages,
    target: Target,
    criterion: str | None,
    *,
    imgsz: int,
    round_to: int,
    protect: Sequence[str] = (),
    seed: int = 0,
    relevance: Relevance | None = None,
    forward: Forward | None = None,
    progress: Progress | None = None,
) -> PrunePlan:
    """What stays of every layer: :func:`fast_plan` where there is a criterion, else the preset ``accurate``."""
    if criterion is not None:
        return fast_plan(
            original, graph, images, target, criterion, imgsz=imgsz, protect=protect, round_to=round_to, seed=seed
        )
    return accurate_plan(
        original,
        graph,
        images,
        target,
        imgsz=imgsz,
        protect=protect,
        round_to=round_to,
        relevance=relevance,
        forward=forward,
        progress=progress,
    )


def fast_plan(
    original: nn.Module,
    graph: ChannelGraph,
    images: LabelledImages | None,
    target: Target,
    criterion: str,
    *,
    imgsz: int,
    spread: Spread = "global",
    protect: Sequence[str] = (),
    round_to: int = 1,
    seed: int = 0,
) -> PrunePlan:
    """What stays of every layer; see :func:`seqprune.budget.by_scores`.

    Args:
        original: the unpruned network, in inference mode.
        graph: its channel graph.
        images: labelled images, for a criterion that looks at them.
        target: what the network is pruned to; operations and time are those at ``imgsz``.
        criterion: see :mod:`seqprune.criteria`.
        imgsz: side of the images in pixels.
        spread, protect, round_to: see :func:`seqprune.budget.by_scores`.
        seed: of every random choice.

    Raises:
        InputError: the criterion needs images, the target cannot be met, or there is nothing of that path to protect.
    """
    removed = by_scores(
        graph,
        price_of(target, original, graph, imgsz),
        scores(criterion, scoring_for(criterion, original, graph, images, seed)),
        target.share,
        spread="absolute" if spread == "global" and criterion in COMPARABLE else spread,
        protect=protect,
        round_to=round_to,
        share=measured_share(target, original, graph, imgsz, next(original.parameters()).device),
    )
    return PrunePlan.from_removed(graph, removed)
