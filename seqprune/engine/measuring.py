"""What a run measures of a network before and after: its size and accuracy, then, in turns, its time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from seqprune.budget.cost import gflops, parameters
from seqprune.engine.ending import End
from seqprune.engine.listener import Listener
from seqprune.engine.portrait import overall, per_class
from seqprune.engine.record import Record, Size
from seqprune.engine.state import State
from seqprune.engine.task import Task
from seqprune.errors import MeasurementError, SeqPruneError, UnlabelledError
from seqprune.observe.ranks import Ranks
from seqprune.plan import PrunePlan


@dataclass(frozen=True)
class Outcome:
    """What came out of a run: the pruned network on the CPU, what stays of it, and everything measured."""

    model: nn.Module
    plan: PrunePlan
    record: Record


def measured(
    kind: type[Size], task: Task, model: nn.Module, accuracy: bool, when: str, told: Listener, state: State
) -> tuple[Size, dict[str, float]]:
    """Size of a model, its accuracy where that is wanted, and that of each class; its time is taken later."""

    def look() -> dict[str, float]:
        told.stage(f"measure {when}", None)
        try:
            known = task.accuracy(model) if accuracy else {}
        except UnlabelledError as why:
            told.warning(f"accuracy is not measured: {why}")
            return {}
        return {name: value for name, value in known.items() if math.isfinite(value)}

    found = state.plain(f"measured-{when}", look)
    return size_of(kind, task, model, overall(found)), per_class(found)


def size_of(kind: type[Size], task: Task, model: nn.Module, accuracy: Mapping[str, float]) -> Size:
    return kind.of(parameters(model), gflops(model, task.example(model)), accuracy)


def finished(out: Outcome, end: End, of_classes: Mapping[str, float], ranks: Ranks) -> Outcome:
    """The outcome with the accuracy and the time of what was pruned.

    Raises:
        MeasurementError: they cannot be measured; its ``result`` is the outcome without them.
    """
    record, before, pruned = out.record, end.subject.model, out.model
    task, told = end.task, end.told
    try:
        whole = record.before.has_accuracy
        after, of_classes_after = measured(end.subject.kind, task, pruned, whole, "after", told, State())
        # Timed in turns at the end: minutes apart, a busy machine would tell more than the models.
        found = {} if ranks.rank else end.found(pruned, record.before, after)
    except MeasurementError as error:
        error.result = out
        raise
    except (SeqPruneError, OSError, RuntimeError, MemoryError) as error:
        failure = MeasurementError(f"what was pruned cannot be measured: {error}")
        failure.result = out
        raise failure from error
    record = replace(
        record,
        unreadable_val=task.unreadable_val,
        before=replace(record.before, latency_ms=_median(found, "before")),
        after=replace(after, latency_ms=_median(found, "after"), file_bytes=record.after.file_bytes),
        **found,
        classes={"before": dict(of_classes), "after": of_classes_after} if of_classes else {},
        pictures=_pictures(task, before, pruned, told) if whole and not ranks.rank else (),
    )
    return replace(out, record=record)


def _median(found: Mapping[str, Any], when: str) -> float:
    return float(found["timed"][when]["median"]) if found else math.nan


def _pictures(task: Task, before: nn.Module, after: nn.Module, told: Listener) -> tuple[dict[str, Any], ...]:
    """For the page alone: what is measured stays where they cannot be drawn."""
    try:
        return task.pictures(before, after)
    except (SeqPruneError, OSError, RuntimeError, ValueError) as error:
        told.warning(f"no images are shown on the page: {error}")
        return ()
