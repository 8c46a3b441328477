"""Fewer images than there are: samples to look at, and one to measure on often."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from seqprune.engine.batches import Batches
from seqprune.engine.modules import ModuleTask
from seqprune.engine.task import Task
from seqprune.errors import InputError


def samples(task: Task, count: int, images: int | None, seed: int) -> list[Task]:
    """The task with each of ``count`` samples of ``images`` to look at.

    What a method does with other images is told apart by them from what it does better.

    Args:
        task: with all of the images, as many as the samples have together where there are so many.
        count: of samples; of one, the task as it is.
        images: in each.
        seed: of the draw.

    Raises:
        InputError: the samples could not differ.
    """
    if count == 1:
        return [task]
    seen: Any = task.images
    size = seen.image_count if images is None else images
    if isinstance(seen, Batches):
        parts: list[Any] = list(seen.deal(count, size))
    else:
        from seqprune.yolo.data.subset import dealt

        parts = list(dealt(seen, count, size, seed))
    whole: Any = task
    return [replace(whole, images=part) for part in parts]


@contextmanager
def measured_on(task: Task, images: int | None, seed: int) -> Iterator[Task]:
    """The task with its accuracy measured on so many of the ``val`` images; on all of them where None.

    Raises:
        InputError: an ``evaluate`` of the caller's measures, which knows its images alone.
        DataError: a number that cannot be used.
    """
    whole: Any = task
    if images is None:
        yield task
    elif isinstance(task, ModuleTask):
        if task.evaluate is not None or task.validation is None:
            raise InputError(f"images={images}: evaluate measures on images of its own; leave images out")
        held: Any = task.validation
        yield replace(task, validation=held.first(images))
    else:
        from seqprune.yolo.data.subset import sampled

        if whole.classifies:
            yield replace(whole, validation={**whole.validation, "images": images, "seed": seed})
            return
        with sampled(whole.validation["data"], images, seed) as described:
            yield replace(whole, validation={**whole.validation, "data": described})
