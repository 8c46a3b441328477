"""An Ultralytics network and its data as the engine is given them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from seqprune.budget.size import FEWEST
from seqprune.engine.listener import Listener
from seqprune.engine.presets import Way
from seqprune.engine.record import ClassMeasurements, Measurements
from seqprune.engine.settings import Choose, Look, Train
from seqprune.engine.state import State
from seqprune.engine.stopwatch import Stopwatch
from seqprune.engine.subject import Subject
from seqprune.errors import InputError
from seqprune.observe.batch import Noise
from seqprune.runtimes.where import QUANTISING, check_tool, has_tool, missing_tools
from seqprune.surgery import compact
from seqprune.yolo.data.files import FileImages
from seqprune.yolo.data.images import images_for
from seqprune.yolo.files.heads import knows_some, only_classes
from seqprune.yolo.files.load import LoadedDetector, load
from seqprune.yolo.files.networks import NETWORKS, names_of
from seqprune.yolo.files.pruned import is_masked
from seqprune.yolo.task.measured import SameImages
from seqprune.yolo.task.sized import left_to_others, sized
from seqprune.yolo.task.task import YoloTask
from seqprune.yolo.task.tracing import image_channels, padded, trace_detector
from seqprune.yolo.train.teacher import check_student


def yolo_subject(
    model: str | Path | nn.Module | Any,
    data: str | Path,
    look: Look,
    choose: Choose,
    train: Train,
    *,
    device: torch.device,
    trust: bool,
    told: Listener,
    classes: Collection[str | int] | None = None,
    state: State | None = None,
) -> tuple[Subject, Look]:
    """The network, its graph and its images, and what is looked at with the size of the images filled in.

    Raises:
        InputError: weights, data, names or numbers that cannot be used.
    """
    detector = _settled(load(model, tasks=NETWORKS, trust=trust, seed=choose.seed), told)
    if classes is not None:
        cut = only_classes(detector.model, classes)
        detector = replace(detector, model=cut, names=names_of(cut))
    if train.distill:
        check_student(detector.model)
    classifies = detector.task == "classify"
    asked, imgsz = look.imgsz, look.imgsz or detector.imgsz
    look = replace(look, imgsz=imgsz)
    graph = trace_detector(detector.model)
    task = YoloTask(
        images_to_look_at(detector, data, look, imgsz, choose, told),
        detector.names,
        imgsz,
        detector.task,
        {"data": data, "imgsz": imgsz, "batch": look.batch, "device": str(device)}
        | {"watched": (told.expect, told.progress)},
        detector.source,
        SameImages(told.warning),
    )
    kind = ClassMeasurements if classifies else Measurements
    subject = Subject(detector.model, graph, task, kind, detector.source, str(data), at_size=task.at_size)
    state, way = state or State(), choose.way
    subject = replace(subject, eight_bits=_eight_bits_for(detector.task, data, look, way, told))
    if look.int8 and way.by_time:
        task, way = _in_eight_bits(detector.model, task, look, way, told, state)
        subject = replace(subject, left=(task, None, way))
    if "size" in way.by or (asked is None and shrinks_unasked(choose, detector.task, task.images, told)):
        size, share = _best_size(detector, str(data), look, choose, way, device, told, state, task)
        smaller = replace(task.at_size(size), images=images_to_look_at(detector, data, look, size, choose, told))
        subject = replace(subject, left=(smaller, size, left_to_others(way, share)))
    return subject, look


def _in_eight_bits(
    model: nn.Module, task: YoloTask, look: Look, way: Way, told: Listener, state: State
) -> tuple[YoloTask, Way]:
    """The task in eight bits, and what they leave of a target of time to the other moves.

    Raises:
        InputError: they save no time there.
    """
    assert way.target is not None  # noqa: S101 - of time
    small = replace(task, bits=8)
    whole, bits = Stopwatch(look.where, task, state).networks([(task, model), (small, model)])
    share = bits.median / whole.median
    if share >= 1:
        raise InputError(
            f"in eight bits the network takes {share:.2f} of its time in {look.runtime} on this processor: leave out "
            f"--int8, or choose another --runtime ({', '.join(QUANTISING)})"
        )
    told.note(
        f"eight bits alone leave {share:.0%} of the time in {look.runtime}; the target is that of the file in them"
    )
    return small, left_to_others(way, min(1.0, way.target.share / share))


def shrinks_unasked(choose: Choose, kind: str, images: FileImages | Noise, told: Listener) -> bool:
    """Whether smaller images are a move though nobody named the moves: of a detector's time they bring the most."""
    if choose.by is not None or not choose.way.by_time or choose.preset != "accurate" or kind != "detect":
        return False
    if not isinstance(images, FileImages) or images.image_count < FEWEST:
        return False
    if not images.objects:
        told.note("the size of the images stays as it is: how well smaller ones do is measured by labels")
    return images.objects > 0


def _eight_bits_for(
    kind: str, data: str | Path, look: Look, way: Way, told: Listener
) -> Callable[..., dict[str, Any]] | None:
    """What brings a network to eight bits: asked for, or one of the trivial ways to less time.

    Raises:
        InputError: they are asked for, and there is no tool for it, or there are no images.
    """
    usable = kind == "detect" and bool(data) and look.val
    if look.int8:
        if not usable:
            raise InputError("int8 is for detectors whose accuracy is measured: give --data, and leave out --no-val")
        check_tool(look.runtime)
    elif not (usable and way.by_time and look.front is not False):
        return None
    elif not has_tool(look.runtime):
        if missing := missing_tools(look.runtime):
            told.note(
                f"eight bits are often the shortest way to less time in {look.runtime}: `pip install "
                f"{' '.join(missing)}` shows what they bring beside this run, and --int8 takes them"
            )
        return None
    from seqprune.yolo.task.eight_bits import eight_bits

    return eight_bits


def _best_size(
    detector: LoadedDetector,
    data: str,
    look: Look,
    choose: Choose,
    way: Way,
    device: torch.device,
    told: Listener,
    state: State,
    task: YoloTask,
) -> tuple[int, float]:
    """The size of the images, and the share that is left to the other moves; found now or by an earlier run."""
    watch = Stopwatch(look.where, task, state) if way.by_time else None
    looked_at = task.images.files if isinstance(task.images, FileImages) else ()

    def find() -> list[float]:
        return list(
            sized(
                *(
                    watch,
                    detector,
                    data,
                    way,
                    choose.settings.round_to,
                    choose.protect,
                    told,
                ),
                imgsz=look.imgsz or detector.imgsz,
                batch=look.batch,
                looked_at=looked_at,
                device=device,
                seed=choose.seed,
            )
        )

    size, share = state.plain("size", find)
    return int(size), float(share)


def images_to_look_at(
    detector: LoadedDetector, data: str | Path, look: Look, imgsz: int, choose: Choose, told: Listener
) -> FileImages | Noise:
    """Train images; without data noise, of which only an example is taken."""
    if not data:
        return Noise(padded(imgsz, detector.stride), image_channels(detector.model), choose.seed)
    seen = images_for(
        detector.task,
        data,
        split="train",
        imgsz=imgsz,
        batch=look.batch,
        images=look.images,
        stride=detector.stride,
        names=detector.names,
        seed=choose.seed,
        labelled=choose.way.asks_for_labels,
        some=knows_some(detector.model),
    )
    if seen.unreadable:
        told.warning(f"left out as unreadable, {len(seen.unreadable)}: {', '.join(seen.unreadable[:5])}")
    return seen


def _settled(detector: LoadedDetector, told: Listener) -> LoadedDetector:
    """A detector without the channels that an earlier pruning masked: the new plan knows nothing of them."""
    if detector.plan is None or not is_masked(detector.model, detector.plan):
        return detector
    told.warning(f"{detector.source} is masked: its masked channels are taken out before it is pruned again")
    return replace(detector, model=compact(detector.model, detector.plan), plan=None)
