"""Accuracy, as Ultralytics measures it."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from ultralytics.engine import validator as validators

from seqprune.errors import InputError, ModelError, UnlabelledError
from seqprune.graph.copying import copied
from seqprune.observe.device import as_device
from seqprune.yolo.data.classes import fitted
from seqprune.yolo.data.dataset import resolve
from seqprune.yolo.data.folders import fitting_names, resolve_folder
from seqprune.yolo.files.contained import contained, one_line, replaced
from seqprune.yolo.files.networks import by_queries, names_of
from seqprune.yolo.task.measured import NO_IMAGES, Images
from seqprune.yolo.task.validators import VALIDATORS, Classes, Queries, Watched


@dataclass(frozen=True)
class Metrics:
    """Accuracy of what the task is about: boxes, masks or key points; each in [0, 1].

    Attributes:
        map50_95: Mean average precision over the IoU thresholds 0.50 to 0.95.
        map50: Mean average precision at IoU 0.50.
        precision: Mean precision at the confidence of the best F1.
        recall: Mean recall at the same confidence.
        by_objects: mAP50-95 again, each class counted by its objects instead of all alike: of few images it says more,
            where most classes have an object or two. ``nan`` without an object.
        images: What it was measured on.
        by_class: mAP50-95 of each class that has an object, by its id.
    """

    map50_95: float
    map50: float
    precision: float
    recall: float
    by_objects: float = math.nan
    images: Images = NO_IMAGES
    by_class: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ClassMetrics:
    """Accuracy of a network that classifies; each in [0, 1].

    Attributes:
        top1: Share of images whose class is the most probable one.
        top5: Share of images whose class is among the five most probable.
        images: What it was measured on.
    """

    top1: float
    top5: float
    images: Images = NO_IMAGES


def validate(
    model: nn.Module,
    data: str | Path,
    *,
    split: str = "val",
    imgsz: int = 640,
    batch: int = 16,
    device: str | torch.device = "cpu",
    some: bool = False,
    watched: Watched | None = None,
) -> Metrics:
    """Measure a detector with Ultralytics' validator, on a copy; the model and the data stay as they are.

    Args:
        model: A detector as :func:`seqprune.yolo.files.load.load` returns it, or pruned from it.
        data: Path of a data YAML, or a name that Ultralytics knows.
        split: Key of the YAML: ``val``, ``train`` or ``test``.
        imgsz: Longest side in pixels.
        batch: Images per batch; it shapes the letterboxed rectangles and so moves the result slightly.
        device: Where to run.
        some: Whether the model knows some of the data's classes only; objects of the others are left out.
        watched: Told how far it is.

    Raises:
        DataError: The data cannot be used, or has other classes than the model.
        UnlabelledError: It has no such split, or no object in it.
        ModelError: The model does not run.
    """
    _check_numbers(imgsz, batch)
    description = resolve(data, needs=())
    if not description.get(split):
        raise UnlabelledError(f"{data}: has no split {split!r}; use one that the data YAML names")
    description = fitted(description, names_of(model), str(data), some=some)
    task = str(getattr(model, "task", "detect"))
    if task not in VALIDATORS:
        raise ModelError(f"accuracy of a model for {task} cannot be measured here; leave it out (--no-val)")
    kind, letter, name = VALIDATORS[task]
    queries = by_queries(model)
    kind = Queries if queries else kind
    arguments = {
        "data": str(description.get("yaml_file", data)),
        "split": split,
        "rect": not queries,
        "save_json": False,
        "val": False,  # else Ultralytics scores official COCO splits with a package it installs itself
    }
    with replaced(validators, "check_det_dataset", lambda *_, **__: dict(description)):  # with classes as the network's
        stats, validator = _measure(kind, model, task, arguments, imgsz, batch, device, watched)
    metrics = validator.metrics
    return Metrics(
        map50_95=float(stats[f"metrics/mAP50-95({letter})"]),
        map50=float(stats[f"metrics/mAP50({letter})"]),
        precision=float(stats[f"metrics/precision({letter})"]),
        recall=float(stats[f"metrics/recall({letter})"]),
        by_objects=_by_objects(getattr(metrics, name), metrics.nt_per_class),
        images=Images.of(validator.dataloader.dataset),
        by_class=_by_class(getattr(metrics, name)),
    )


def validate_classes(
    model: nn.Module,
    data: str | Path,
    *,
    imgsz: int = 224,
    batch: int = 16,
    device: str | torch.device = "cpu",
    images: int | None = None,
    seed: int = 0,
    watched: Watched | None = None,
) -> ClassMetrics:
    """Measure a network that classifies with Ultralytics' validator, on a copy, on the images of ``val``.

    Args:
        model: As for :func:`validate`.
        data: Folder with ``train`` and ``val`` (or ``test``), in each a folder a class.
        imgsz: Side in pixels.
        batch: Images per batch.
        device: Where to run.
        images: Measure on this many images, drawn with ``seed``; None: all.
        seed: Of the draw.
        watched: Told how far it is.

    Raises:
        DataError: The data cannot be used, or its classes are not the model's.
        ModelError: The model does not run.
    """
    _check_numbers(imgsz, batch)
    classes = fitting_names(resolve_folder(data)["names"], names_of(model), str(data))
    kind = type("_OurClasses", (Classes,), {"classes": classes, "images": images, "seed": seed})
    where = {"data": str(data), "split": "val"}
    stats, validator = _measure(kind, model, "classify", where, imgsz, batch, device, watched)
    seen = Images.of(validator.dataloader.dataset)
    return ClassMetrics(float(stats["metrics/accuracy_top1"]), float(stats["metrics/accuracy_top5"]), seen)


def _measure(
    kind: Any,
    model: nn.Module,
    task: str,
    arguments: Mapping[str, Any],
    imgsz: int,
    batch: int,
    device: str | torch.device,
    watched: Watched | None,
) -> tuple[Mapping[str, float], Any]:
    """What one of our validators says of a copy of the model, by Ultralytics' names, and the validator."""
    where = as_device(device)
    copy = copied(model).float().eval()
    with tempfile.TemporaryDirectory(prefix="seqprune-") as folder, contained():
        common = {
            "task": task,
            "mode": "val",
            "imgsz": imgsz,
            "batch": batch,
            "device": where,
            "workers": 0,
            "plots": False,
            "verbose": False,
            "project": folder,
            "name": "val",
            "exist_ok": True,
        }
        validator = kind(args={**common, **arguments}, save_dir=Path(folder))
        validator.watched = watched
        try:
            stats: Mapping[str, float] = validator(model=copy)
        except RuntimeError as error:
            raise ModelError(f"the model cannot be validated: {one_line(error)}") from error
    return stats, validator


def _by_objects(found: Any, objects: Any) -> float:
    """Mean of the classes' precision, ``found.all_ap`` ``[classes seen, thresholds]``, weighted by their objects."""
    if not len(found.all_ap):
        return math.nan
    counts = objects[found.ap_class_index]
    return float((found.all_ap.mean(1) * counts).sum() / counts.sum())


def _by_class(found: Any) -> dict[int, float]:
    if not len(found.all_ap):
        return {}
    return {int(kind): float(ap) for kind, ap in zip(found.ap_class_index, found.all_ap.mean(1), strict=True)}


def _check_numbers(imgsz: int, batch: int) -> None:
    if imgsz < 1 or batch < 1:
        raise InputError(f"imgsz={imgsz} and batch={batch} must be at least 1")
