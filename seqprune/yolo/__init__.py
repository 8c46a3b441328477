"""The only room that imports Ultralytics: weights, data, prediction, validation, training, saving.

Importing this package does not import Ultralytics; the first use of one of its names does. A function that
shares its file's name is taken from there (``from seqprune.yolo.files.load import load``): as an attribute of the
package that name is the file.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seqprune.yolo.data.images import ClassificationImages, DetectionImages
    from seqprune.yolo.files.load import LoadedDetector
    from seqprune.yolo.files.save import save_pt
    from seqprune.yolo.task.profile import Profile, gflops, latency_ms, parameters
    from seqprune.yolo.task.validate import ClassMetrics, Metrics
    from seqprune.yolo.train.trainer import (
        ClassificationTrainer,
        DetectionTrainer,
        OBBTrainer,
        PoseTrainer,
        SegmentationTrainer,
    )
    from seqprune.yolo.train.tuning import finetune

_HOME = {
    "ClassMetrics": "task.validate",
    "ClassificationImages": "data.images",
    "ClassificationTrainer": "train.trainer",
    "DetectionImages": "data.images",
    "DetectionTrainer": "train.trainer",
    "LoadedDetector": "files.load",
    "Metrics": "task.validate",
    "OBBTrainer": "train.trainer",
    "PoseTrainer": "train.trainer",
    "Profile": "task.profile",
    "RTDETRTrainer": "train.trainer",
    "SegmentationTrainer": "train.trainer",
    "finetune": "train.tuning",
    "gflops": "task.profile",
    "latency_ms": "task.profile",
    "parameters": "task.profile",
    "rebuild": "train.facade",
    "save_pt": "files.save",
}

__all__ = [
    "ClassMetrics",
    "ClassificationImages",
    "ClassificationTrainer",
    "DetectionImages",
    "DetectionTrainer",
    "LoadedDetector",
    "Metrics",
    "OBBTrainer",
    "PoseTrainer",
    "Profile",
    "RTDETRTrainer",
    "SegmentationTrainer",
    "finetune",
    "gflops",
    "latency_ms",
    "parameters",
    "rebuild",
    "save_pt",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
