"""The only room that imports Ultralytics: weights, data, prediction, validation, training, saving.

Importing this package does not import Ultralytics; the first use of one of its names does. A function that
shares its file's name is taken from there (``from seqprune.yolo.load import load``): as an attribute of the
package that name is the file.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seqprune.yolo.data import ClassificationImages, DetectionImages
    from seqprune.yolo.load import LoadedDetector
    from seqprune.yolo.profile import Profile, gflops, latency_ms, parameters
    from seqprune.yolo.save import save_pt
    from seqprune.yolo.trainer import (
        ClassificationTrainer,
        DetectionTrainer,
        OBBTrainer,
        PoseTrainer,
        SegmentationTrainer,
    )
    from seqprune.yolo.tuning import finetune
    from seqprune.yolo.validate import ClassMetrics, Metrics
    from seqprune.yolo.widths import WIDTH_ATTRIBUTES

_HOME = {
    "WIDTH_ATTRIBUTES": "widths",
    "ClassMetrics": "validate",
    "ClassificationImages": "data",
    "ClassificationTrainer": "trainer",
    "DetectionImages": "data",
    "DetectionTrainer": "trainer",
    "LoadedDetector": "load",
    "Metrics": "validate",
    "OBBTrainer": "trainer",
    "PoseTrainer": "trainer",
    "Profile": "profile",
    "SegmentationTrainer": "trainer",
    "finetune": "tuning",
    "gflops": "profile",
    "latency_ms": "profile",
    "parameters": "profile",
    "save_pt": "save",
}

__all__ = [
    "WIDTH_ATTRIBUTES",
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
    "SegmentationTrainer",
    "finetune",
    "gflops",
    "latency_ms",
    "parameters",
    "save_pt",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
