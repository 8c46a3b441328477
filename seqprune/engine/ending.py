"""What is measured at the end of a run: time, the trivial way beside it, eight bits."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from seqprune.budget.target import Target
from seqprune.engine.front import Front
from seqprune.engine.listener import Listener
from seqprune.engine.presets import Way
from seqprune.engine.record import Size
from seqprune.engine.settings import Look
from seqprune.engine.stopwatch import Stopwatch
from seqprune.engine.subject import Subject
from seqprune.engine.task import Task
from seqprune.errors import ModelError

QUIET = 0.2
"""Of the median between the quartiles, at most, where nothing else runs."""
NEXT_TO_NONE = 0.5
"""Of the share of the parameters that is saved: less of the time is worth a word."""


@dataclass(frozen=True)
class End:
    """What is known of a run when everything is pruned.

    Attributes:
        subject: what was pruned.
        task: what is asked of the pruned network: with smaller images where their size was a move.
        look: what is looked at.
        way: what was asked for.
        size: of the images in pixels, where it was a move.
        folder: where files beside the weights go.
        told: what is going on.
    """

    subject: Subject
    task: Task
    look: Look
    way: Way
    size: int | None
    folder: Path | None
    told: Listener

    def found(self, pruned: nn.Module, before: Size, after: Size) -> dict[str, Any]:
        """Of :class:`seqprune.engine.record.Record`: ``timed``, ``int8`` and ``front``."""
        watch = Stopwatch(self.look.where, self.subject.task)
        timed = self._timed(pruned, watch)
        say_time(self.way.target, timed, self.told)
        small = self._eight_bits(pruned, self.task, watch, self.folder, "bring to eight bits") if self.look.int8 else {}
        return {"timed": timed, "int8": small, "front": self._front(pruned, watch, before, after, small)}

    def _timed(self, pruned: nn.Module, watch: Stopwatch) -> dict[str, Any]:
        """Both networks in turns, and where."""
        self.told.stage(f"time in {watch.where.runtime}", None)
        before, after = watch.networks([(self.subject.task, self.subject.model), (self.task, pruned)])
        return watch.where.about() | {"bits": self.task.bits, "before": before.plain(), "after": after.plain()}

    def _eight_bits(
        self, model: nn.Module, task: Task, watch: Stopwatch, folder: Path | None, stage: str
    ) -> dict[str, Any]:
        """Nothing where there is no tool for it."""
        if self.subject.eight_bits is None:
            return {}
        self.told.stage(stage, None)
        with tempfile.TemporaryDirectory(prefix="seqprune-") as temporary:
            return self.subject.eight_bits(model, task, watch, folder or Path(temporary))

    def _front(
        self, pruned: nn.Module, watch: Stopwatch, before: Size, after: Size, small: dict[str, Any]
    ) -> tuple[dict[str, Any], ...]:
        """See :mod:`seqprune.engine.front`; nothing where it is not asked for or cannot be measured."""
        look, at_size = self.look, self.subject.at_size
        wanted = self.way.by_time if look.front is None else look.front
        if not wanted or at_size is None or look.imgsz is None or not before.has_accuracy:
            return ()
        front = Front(
            model=self.subject.model,
            pruned=pruned,
            at=at_size,
            watch=watch,
            imgsz=look.imgsz,
            size=self.size or look.imgsz,
            timed=self.way.by_time,
            every=bool(look.front),
            told=self.told,
            in_eight_bits=small,
            quantise=lambda side: self._whole_in_eight_bits(at_size(side), side, watch),
        )
        return front.points([before.accuracies, after.accuracies])

    def _whole_in_eight_bits(self, task: Task, side: int, watch: Stopwatch) -> dict[str, Any]:
        """One of the trivial ways: nothing where the runtime's tool fails."""
        try:
            stage = f"measure unpruned in eight bits at {side} pixels"
            return self._eight_bits(self.subject.model, task, watch, None, stage)
        except ModelError as why:
            self.told.warning(f"the unpruned network is not measured in eight bits: {why}")
            return {}


def say_time(target: Target | None, timed: dict[str, Any], told: Listener) -> None:
    """Parameters are no time: a target of them is told where it saves less than half as much of the time. Nor are
    times on a busy machine: one of time is told where they are spread.
    """
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
