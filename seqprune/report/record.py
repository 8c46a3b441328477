"""Everything that was measured in one run, and its JSON."""

from __future__ import annotations

import json
import math
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

from seqprune.sequential import StepReport
from seqprune.surgery import Difference


@dataclass(frozen=True)
class Measurements:
    """Size, speed and accuracy of one model; accuracy is ``None`` where it was not measured."""

    params: int
    gflops: float
    latency_ms: float
    map50_95: float | None = None
    map50: float | None = None
    precision: float | None = None
    recall: float | None = None


@dataclass(frozen=True)
class Record:
    """One run: what went in, what every step did, what came out."""

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
    before: Measurements
    after: Measurements
    unreadable: tuple[str, ...] = ()

    def to_json(self) -> str:
        return json.dumps(_plain(asdict(self)), indent=2, allow_nan=False) + "\n"


def versions() -> dict[str, str]:
    """Versions of what decides the result."""
    packages = ("seqprune", "torch", "torchvision", "ultralytics", "scikit-learn", "kmedoids", "kneed", "numpy")
    return {"python": platform.python_version()} | {name: version(name) for name in packages}


def _plain(value: Any) -> Any:
    """JSON has no NaN: a value that is not finite becomes null."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
