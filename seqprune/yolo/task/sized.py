"""The size of the images chosen with the other moves, by how well each candidate does on images held out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from ultralytics.data.utils import img2label_paths

from seqprune.budget.size import MOST_HELD, MOST_KNOWN, Candidate, along, best, candidates, chance, curve, evenly, folds
from seqprune.engine.engine import Engine, streams_for
from seqprune.engine.listener import Listener, within
from seqprune.engine.moves import decide
from seqprune.engine.presets import Way
from seqprune.engine.stopwatch import Stopwatch
from seqprune.errors import InputError, TargetError
from seqprune.graph.copying import copied
from seqprune.surgery import compact
from seqprune.yolo.data.images import DetectionImages
from seqprune.yolo.data.subset import listed
from seqprune.yolo.files.load import LoadedDetector
from seqprune.yolo.task.profile import gflops
from seqprune.yolo.task.task import YoloTask
from seqprune.yolo.task.tracing import image_channels, trace_detector
from seqprune.yolo.task.validate import validate


def sized(
    watch: Stopwatch | None,
    detector: LoadedDetector,
    data: str,
    way: Way,
    round_to: int,
    protect: Sequence[str],
    told: Listener,
    *,
    imgsz: int,
    batch: int,
    looked_at: Sequence[Path],
    device: torch.device,
    seed: int,
) -> tuple[int, float]:
    """The size, and the share of the cost there that is left to the other moves; 1 where they have nothing to do.

    Accuracy counts classes by their objects, which moves least for nothing. ``watch`` measures time; ``looked_at`` are
    the train images of the run.

    Raises:
        InputError: a target that no size helps to meet, or a network whose accuracy cannot be measured by boxes.
    """
    target = way.target
    assert target is not None  # noqa: S101 - only a preset with a target has moves
    if target.kind == "params" or detector.task != "detect":
        raise InputError(
            f"smaller images bring nothing to {target.kind}={target.share:g}, or are not chosen for {detector.task}: "
            "leave size out of the moves, or give a target of flops or latency for a detector"
        )
    step, cost = max(detector.stride, 32), partial(_cost, detector.model, watch)
    told.stage("cost of smaller images", None)
    found = candidates(imgsz, target.share, cost, step, others=way.by != ("size",))
    if len(found) == 1:
        return found[0].imgsz, found[0].left
    how: dict[str, Any] = {"batch": batch, "names": detector.names, "seed": seed}
    others = DetectionImages(data, imgsz=imgsz, images=MOST_KNOWN, labelled=False, **how)
    labelled = _labelled(sorted({*looked_at, *others.files}))
    apart = folds(looked_at, labelled)
    with ExitStack() as stack:

        def made(files: Sequence[Path]) -> Path:
            return stack.enter_context(listed(files, detector.names, image_channels(detector.model)))

        measure = partial(_by_objects, batch=batch, device=device)
        alone = _alone(detector.model, made(evenly(labelled, MOST_HELD)), along(found, imgsz, step), measure, told)
        tests = [(made(fold.fitted), made(fold.held)) for fold in apart]
        judged = sum(len(fold.held) for fold in apart)
        told.note(f"other moves are judged on {judged} train images by fits to others")
        how = {"round_to": round_to, "protect": protect, "seed": seed}
        trial = _Trial(detector, way, watch, tests, batch, device, told, how, alone, measure)
        chosen = best(found, trial, chance(apart))
    return chosen.imgsz, chosen.left


def _alone(
    model: nn.Module, images: Path, sizes: Sequence[int], measure: Callable[..., float], told: Listener
) -> Callable[[int], float]:
    """Accuracy of the unpruned network over the sizes of the images."""
    measured = {}
    for size in sizes:
        told.stage(f"measure {size} pixels alone", None)
        measured[size] = measure(model, images, imgsz=size)
    told.note(
        "map50_95 by objects of the unpruned network, train images: "
        + ", ".join(f"{size} pixels {value:.4f}" for size, value in measured.items())
    )
    return curve(measured)


@dataclass(frozen=True)
class _Trial:
    """Network and images as they would be at a size, made with some train images and measured on others.

    Attributes:
        tests: data sets to fit to, and to measure on.
        how: what else is asked for.
        alone: accuracy of the unpruned network at a size, of many images.
        measure: accuracy of a network on a data set.
    """

    detector: LoadedDetector
    way: Way
    watch: Stopwatch | None
    tests: Sequence[tuple[Path, Path]]
    batch: int
    device: torch.device
    told: Listener
    how: Mapping[str, Any]
    alone: Callable[[int], float]
    measure: Callable[..., float]

    def __call__(self, each: Candidate) -> float:
        """Its accuracy; ``-inf`` where the other moves cannot bring what is left to them.

        What they lose is measured beside the unpruned network on the same images: both move alike with what these show.
        """
        alone = self.alone(each.imgsz)
        if each.left == 1:
            self.told.note(f"{each.imgsz} pixels: map50_95 by objects {alone:.4f}, alone enough")
            return alone
        before = after = 0.0
        for fit, test in self.tests:
            pruned = self._pruned(each, fit)
            if pruned is None:
                return -math.inf
            both = [self.measure(network, test, imgsz=each.imgsz) for network in (self.detector.model, pruned)]
            before, after = before + both[0], after + both[1]
        found = alone * after / before if before else math.nan
        self.told.note(
            f"{each.imgsz} pixels: map50_95 by objects {found:.4f}, {alone:.4f} without other moves, which leave "
            f"{each.left:.0%}"
        )
        return found

    def _pruned(self, each: Candidate, images: Path) -> nn.Module | None:
        """The network as it would be there; ``None``, and a note, where the target cannot be met."""
        detector, model, watch = self.detector, self.detector.model, self.watch
        about_images: dict[str, Any] = {"imgsz": each.imgsz, "batch": self.batch, "names": detector.names}
        seen = DetectionImages(images, stride=detector.stride, labelled=False, **about_images)
        task = YoloTask(seen, detector.names, each.imgsz, bits=watch.task.bits if watch else 32)
        inside = within(self.told, f"try {each.imgsz} pixels")
        about = copied(model).to(self.device), trace_detector(model), task, streams_for(task, model)
        with closing(Engine(*about, told=inside)) as engine:
            if watch is not None:
                engine = replace(engine, watch=replace(watch, task=task))
            left = left_to_others(self.way, each.left)
            relevance = engine.weigh_errors()
            try:
                decided = decide(engine, left, **self.how, relevance=relevance, compared=False)
            except TargetError as why:
                self.told.note(f"at {each.imgsz} pixels the target cannot be met: {why}")
                return None
            with closing(decided.engine):
                repaired, _ = decided.engine.repair(decided.chosen, self.way.recover, decided.relevance)
                inside.stage("measure", None)
                return compact(repaired, decided.chosen.plan, decided.engine.graph)


def _labelled(files: Sequence[Path]) -> list[Path]:
    """
    Raises:
        InputError: none has labels.
    """
    found = [file for file in files if all(Path(labels).is_file() for labels in img2label_paths([str(file)]))]
    if not found:
        raise InputError(
            "how well a network does on smaller images is measured by labels, and the train images have none: label "
            "some, or leave size out of --by"
        )
    return found


def _by_objects(model: nn.Module, images: Path, *, imgsz: int, batch: int, device: torch.device) -> float:
    return validate(model, images, imgsz=imgsz, batch=batch, device=device).by_objects


def _cost(model: nn.Module, watch: Stopwatch | None, size: int) -> float:
    """Operations at a size in pixels, or the share of the time at the size that was given."""
    if watch is None:
        return gflops(model, size)
    before, after = watch.networks([(watch.task, model), (cast(YoloTask, watch.task).at_size(size), model)])
    return after.median / before.median


def left_to_others(way: Way, share: float) -> Way:
    """The way to what is left of its target; nothing is repaired where nothing is done."""
    assert way.target is not None  # noqa: S101 - only a preset with a target has moves
    return replace(way, target=way.target.of_the_rest(share), recover=way.recover if share < 1 else "none")
