"""Everything that was measured in one run, and its JSON."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

from seqprune.engine.steps import StepReport
from seqprune.plan import PrunePlan
from seqprune.repair.recover import Repair
from seqprune.surgery import Difference


@dataclass(frozen=True)
class Size:
    """Size and speed of one model.

    Attributes:
        params: number of parameters.
        gflops: 10⁹ floating-point operations for one image.
        latency_ms: median milliseconds for one image; NaN where it was not measured.
        file_bytes: of the file it came from, or is saved to as a ``.pt``; None where it cannot be saved.
    """

    params: int
    gflops: float
    latency_ms: float = math.nan
    file_bytes: int | None = field(default=None, kw_only=True)

    @classmethod
    def of(cls, params: int, gflops: float, accuracy: Mapping[str, float]) -> Size:
        """With the accuracies that this kind has a place for."""
        known = {entry.name for entry in fields(cls)}
        measured: dict[str, Any] = {name: value for name, value in accuracy.items() if name in known}
        return cls(params, gflops, **measured)

    @property
    def accuracies(self) -> dict[str, float]:
        """Those that were measured, by name."""
        sizes = {entry.name for entry in fields(Size)}
        found = {entry.name: getattr(self, entry.name) for entry in fields(self) if entry.name not in sizes}
        return {name: value for name, value in found.items() if value is not None}

    @property
    def has_accuracy(self) -> bool:
        """Whether any accuracy was measured."""
        return bool(self.accuracies)


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
class ModuleMeasurements(Size):
    """The same with whatever the caller measures, by name."""

    accuracy: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, params: int, gflops: float, accuracy: Mapping[str, float]) -> Size:
        return cls(params, gflops, accuracy=dict(accuracy))

    @property
    def accuracies(self) -> dict[str, float]:
        return self.accuracy


@dataclass(frozen=True)
class Record:
    """One run: what went in, what every step did, what came out; ``data`` is empty where no images were given.

    Attributes:
        network: every layer before and after, see :func:`seqprune.engine.portrait.portrait`.
        classes: accuracy of each class by its name, ``before`` and ``after``; empty where it was not measured.
        made: the command, the day, the processor, see :func:`seqprune.engine.portrait.circumstances`.
        names: class id to name.
        pictures: a few images with what was found in them before and after, see
            :meth:`seqprune.engine.task.Task.pictures`.
    """

    model: str
    data: str
    preset: str
    seed: int
    mode: str
    finetune: int
    settings: dict[str, Any] = field(repr=False)
    versions: dict[str, str] = field(repr=False)
    steps: tuple[StepReport, ...] = field(repr=False)
    verify: Difference
    before: Size
    after: Size
    unreadable: tuple[str, ...] = ()
    unreadable_val: tuple[str, ...] = ()
    repairs: tuple[Repair, ...] = field(default=(), repr=False)
    network: tuple[dict[str, Any], ...] = field(default=(), repr=False)
    classes: dict[str, dict[str, float]] = field(default_factory=dict, repr=False)
    made: dict[str, Any] = field(default_factory=dict, repr=False)
    pictures: tuple[dict[str, Any], ...] = field(default=(), repr=False, compare=False)
    names: dict[int, str] = field(default_factory=dict, repr=False, compare=False)
    timed: dict[str, Any] = field(default_factory=dict, repr=False)
    """Where ``latency_ms`` was measured: the runtime and its version, threads, device, processor, and the spreads
    ``before`` and ``after``."""
    int8: dict[str, Any] = field(default_factory=dict, repr=False)
    """What was pruned, exported, in floats and in eight bits: by ``float`` and ``int8`` bytes of the file, time and
    accuracy; ``file`` is the latter's name, beside the weights."""
    front: tuple[dict[str, Any], ...] = field(default=(), repr=False)
    """The pruned network and the unpruned one on images of several sizes; see :class:`seqprune.engine.front.Point`."""
    along: tuple[dict[str, Any], ...] = field(default=(), repr=False)
    """What was measured between ``before`` and ``after``; see :meth:`seqprune.engine.along.Along.points`."""

    def plain(self) -> dict[str, Any]:
        """The figures, as JSON can hold them: without what is drawn, see :meth:`drawn`."""
        found: dict[str, Any] = _plain(asdict(self))
        del found["pictures"], found["names"]
        for step in found["steps"]:
            del step["seen"]
        return found

    def drawn(self) -> dict[str, Any]:
        """What pages draw beside the figures: by layer what was clustered, and pictures; empty without either."""
        seen = {step.layer: step.seen for step in self.steps if step.seen is not None}
        found = {"names": self.names, "layers": seen, "pictures": list(self.pictures)}
        return {name: value for name, value in found.items() if value} if seen or self.pictures else {}

    def to_json(self) -> str:
        return json.dumps(self.plain(), indent=2, allow_nan=False) + "\n"


@dataclass(frozen=True)
class Trained:
    """What training left.

    Attributes:
        folder: where ``weights/best.pt``, ``weights/last.pt``, ``results.csv``, ``args.yaml`` lie and, where there
            is a plan, ``plan.json``.
        best: the best checkpoint.
        plan: what the network was pruned by, ``None`` where it carries none.
        metrics: of the best checkpoint on the ``val`` images, by Ultralytics' names.
    """

    folder: Path
    best: Path
    plan: PrunePlan | None
    metrics: dict[str, float]


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
