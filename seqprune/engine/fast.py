"""The preset ``fast``: a whole network to a target, by scores of its channels."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from seqprune.budget.criteria import COMPARABLE, scores
from seqprune.budget.spread import Spread, by_scores
from seqprune.budget.target import Target, measured_share, meeting, price_of
from seqprune.engine.scoring import scoring_for
from seqprune.engine.task import Task
from seqprune.graph.channels import ChannelGraph
from seqprune.plan import PrunePlan
from seqprune.runtimes.layers import Timing


def fast_plan(
    original: nn.Module,
    graph: ChannelGraph,
    task: Task,
    target: Target,
    criterion: str,
    *,
    spread: Spread = "global",
    protect: Sequence[str] = (),
    round_to: int = 1,
    seed: int = 0,
    timing: Timing | None = None,
) -> PrunePlan:
    """What stays of every layer; see :func:`seqprune.budget.spread.by_scores`.

    Args:
        original: the unpruned network, in inference mode.
        graph: its channel graph.
        task: its images are for a criterion that looks at them, its example for operations and time.
        target: what the network is pruned to.
        criterion: see :mod:`seqprune.budget.criteria`.
        spread, protect, round_to: see :func:`seqprune.budget.spread.by_scores`.
        seed: of every random choice.
        timing: measures, where the target is time.

    Raises:
        InputError: the criterion needs images, the target cannot be met, or there is nothing of that path to protect.
    """
    example = task.example(original)
    price = price_of(target, original, graph, example, timing)
    removed = by_scores(
        graph,
        price,
        scores(criterion, scoring_for(criterion, original, graph, task, seed)),
        target.share,
        spread="absolute" if spread == "global" and criterion in COMPARABLE else spread,
        protect=protect,
        round_to=round_to,
        share=measured_share(target, price, original, graph, example),
        meet=None if timing is None else meeting(target, original, graph, timing),
    )
    return PrunePlan.from_removed(graph, removed)
