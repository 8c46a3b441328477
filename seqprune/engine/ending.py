"""What is measured at the end of a run: time, the trivial way beside it, eight bits."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from torch import nn

from seqprune.budget.target import Target
from seqprune.engine.front import front_of
from seqprune.engine.listener import Listener
from seqprune.engine.presets import Way
from seqprune.engine.record import Size
from seqprune.engine.settings import Look
from seqprune.engine.stopwatch import Stopwatch
from seqprune.engine.subject import Subject
from seqprune.engine.task import Task

QUIET = 0.2
"""Of the median between the quartiles, at most, where nothing else runs."""
NEXT_TO_NONE = 0.5
"""Of the share of the parameters that is saved: less of the time is worth a word."""


def timed(subject: Subject, task: Task, pruned: nn.Module, watch: Stopwatch) -> dict[str, Any]:
    """Both networks in turns, and where."""
    before, after = watch.networks([(subject.task, subject.model), (task, pruned)])
    return watch.where.about() | {"before": before.plain(), "after": after.plain()}


def say_time(target: Target | None, timed: dict[str, Any], told: Listener) -> None:
    """Parameters are no time: a target of them is told where it saves less than half as much of the time. Nor are
    times on a busy machine: one of time is told where they are spread."""
    spread = max((timed[when]["high"] - timed[when]["low"]) / timed[when]["median"] for when in ("before", "after"))
    if target is not None and target.kind == "latency" and spread > QUIET:
        told.warning(
            f"times in {timed['runtime']} spread by {spread:.0%}: something else ran meanwhile; prune and measure on a "
            "quiet machine (`seqprune bench` times both again)"
        )
    share = timed["after"]["median"] / timed["before"]["median"]
    if target is not None and target.kind == "params" and 1 - share < NEXT_TO_NONE * (1 - target.share):
        told.warning(
            f"params={target.share:g} leaves {share:.0%} of the time in {timed['runtime']}: where time matters, give "
            f"--target latency={target.share:g}"
        )


def eight_bits(
    subject: Subject,
    task: Task,
    pruned: nn.Module,
    watch: Stopwatch,
    look: Look,
    folder: Path | None,
    told: Listener,
) -> dict[str, Any]:
    """What :attr:`Record.int8` holds; nothing where it is not asked for."""
    if not look.int8 or subject.eight_bits is None:
        return {}
    told.stage("bring to eight bits", None)
    with tempfile.TemporaryDirectory(prefix="seqprune-") as temporary:
        return subject.eight_bits(pruned, task, watch, folder or Path(temporary))


def front(
    subject: Subject,
    pruned: nn.Module,
    watch: Stopwatch,
    look: Look,
    way: Way,
    size: int | None,
    before: Size,
    after: Size,
    told: Listener,
) -> tuple[dict[str, Any], ...]:
    """See :mod:`seqprune.engine.front`; nothing where it is not asked for or cannot be measured."""
    by_time = way.target is not None and way.target.kind == "latency"
    wanted = by_time if look.front is None else look.front
    if not wanted or subject.at_size is None or look.imgsz is None or not before.has_accuracy:
        return ()
    return front_of(
        *(subject.model, pruned, subject.at_size, watch),
        imgsz=look.imgsz,
        size=size or look.imgsz,
        accuracies=[before.accuracies, after.accuracies],
        timed=by_time,
        every=bool(look.front),
        told=told,
    )
