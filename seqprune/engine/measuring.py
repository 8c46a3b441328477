"""What a run measures of a network before and after: its size and accuracy, then, in turns, its time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from seqprune.budget.cost import gflops, latencies_ms, parameters
from seqprune.engine.listener import Listener
from seqprune.engine.portrait import PER_CLASS, per_class
from seqprune.engine.record import Record, Size
from seqprune.engine.state import State
from seqprune.engine.subject import Subject
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


def overall(accuracy: Mapping[str, float]) -> dict[str, float]:
    """Those of all classes together."""
    return {name: value for name, value in accuracy.items() if not name.startswith(PER_CLASS)}


def size_of(kind: type[Size], task: Task, model: nn.Module, accuracy: Mapping[str, float]) -> Size:
    return kind.of(parameters(model), gflops(model, task.example(model)), accuracy)


def finished(
    out: Outcome, subject: Subject, task: Task, of_classes: Mapping[str, float], told: Listener, ranks: Ranks
) -> Outcome:
    """The outcome with the accuracy and the time of what was pruned.

    Raises:
        MeasurementError: they cannot be measured; its ``result`` is the outcome without them.
    """
    record, before, pruned = out.record, subject.model, out.model
    try:
        whole = record.before.has_accuracy
        after, of_classes_after = measured(subject.kind, task, pruned, whole, "after", told, State())
        # Timed in turns at the end: minutes apart, a busy machine would tell more than the models.
        slow, fast = math.nan, math.nan
        if not ranks.rank:
            slow, fast = latencies_ms([before, pruned], [subject.task.example(before), task.example(pruned)], "cpu")
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
        before=replace(record.before, latency_ms=slow),
        after=replace(after, latency_ms=fast, file_bytes=record.after.file_bytes),
        classes={"before": dict(of_classes), "after": of_classes_after} if of_classes else {},
        pictures=_pictures(task, before, pruned, told) if whole and not ranks.rank else (),
    )
    return replace(out, record=record)


def _pictures(task: Task, before: nn.Module, after: nn.Module, told: Listener) -> tuple[dict[str, Any], ...]:
    """For the page alone: what is measured stays where they cannot be drawn."""
    try:
        return task.pictures(before, after)
    except (SeqPruneError, OSError, RuntimeError, ValueError) as error:
        told.warning(f"no images are shown on the page: {error}")
        return ()
