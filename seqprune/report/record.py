"""Everything that was measured in one run, and its JSON."""

from __future__ import annotations

import json
import math
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

from seqprune.engine.sequential import StepReport
from seqprune.repair.recover import Repair
from seqprune.surgery import Difference

_ACCURACIES = {
    "map50_95": "mAP50-95",
    "map50": "mAP50",
    "precision": "precision",
    "recall": "recall",
    "top1": "top-1 accuracy",
    "top5": "top-5 accuracy",
}


@dataclass(frozen=True)
class Size:
    """Size and speed of one model."""

    params: int
    gflops: float
    latency_ms: float


@dataclass(frozen=True)
class Measurements(Size):
    """The same with the accuracy of what finds objects; ``None`` where it was not measured."""

    map50_95: float | None = None
    map50: float | None = None
    precision: float | None = None
    recall: float | None = None


@dataclass(frozen=True)
class ClassMeasurements(Size):
    """The same with the accuracy of what classifies; ``None`` where it was not measured."""

    top1: float | None = None
    top5: float | None = None


@dataclass(frozen=True)
class Record:
    """One run: what went in, what every step did, what came out; ``data`` is empty where no images were given."""

    model: str
    data: str
    preset: str
    seed: int
    mode: str
    finetune: int
    settings: dict[str, Any]
    versions: dict[str, str]
    steps: tuple[StepReport, ...]
    verify: Difference
    before: Measurements | ClassMeasurements
    after: Measurements | ClassMeasurements
    unreadable: tuple[str, ...] = ()
    repairs: tuple[Repair, ...] = ()

    def to_json(self) -> str:
        return json.dumps(_plain(asdict(self)), indent=2, allow_nan=False) + "\n"


@dataclass(frozen=True)
class Compared:
    """One line of the table before/after, as text."""

    what: str
    before: str
    after: str
    change: str


def accuracies(measured: Size) -> dict[str, float]:
    """What was measured of a model's accuracy, by its title."""
    found = {title: getattr(measured, name, None) for name, title in _ACCURACIES.items()}
    return {title: value for title, value in found.items() if value is not None}


def compare(before: Size, after: Size) -> list[Compared]:
    """The table before/after: sizes change by a share, accuracies by a difference; only what was measured."""
    lines = [
        Compared("parameters", f"{before.params:,}", f"{after.params:,}", _share(before.params, after.params)),
        Compared("GFLOPs", f"{before.gflops:.2f}", f"{after.gflops:.2f}", _share(before.gflops, after.gflops)),
        Compared(
            "CPU latency, ms",
            f"{before.latency_ms:.1f}",
            f"{after.latency_ms:.1f}",
            _share(before.latency_ms, after.latency_ms),
        ),
    ]
    now_by_title = accuracies(after)
    for title, was in accuracies(before).items():
        if (now := now_by_title.get(title)) is not None:
            lines.append(Compared(title, f"{was:.4f}", f"{now:.4f}", f"{now - was:+.4f}"))
    return lines


def _share(before: float, after: float) -> str:
    return f"{100 * (after / before - 1):+.1f} %" if before else ""


def versions() -> dict[str, str]:
    """Versions of what decides the result."""
    packages = (
        "seqprune",
        "torch",
        "torchvision",
        "ultralytics",
        "scikit-learn",
        "kmedoids",
        "kneed",
        "numpy",
    )
    return {"python": platform.python_version()} | {name: version(name) for name in packages}


def _plain(value: Any) -> Any:
    """JSON has no NaN: a value that is not finite becomes null."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
