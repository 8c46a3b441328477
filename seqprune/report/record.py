"""A record as text: the table before and after."""

from __future__ import annotations

from dataclasses import dataclass

from seqprune.engine.record import ModuleMeasurements, Size

ACCURACIES = {
    "map50_95": "mAP50-95",
    "map50": "mAP50",
    "precision": "precision",
    "recall": "recall",
    "top1": "top-1 accuracy",
    "top5": "top-5 accuracy",
}


@dataclass(frozen=True)
class Compared:
    """One line of the table before/after, as text."""

    what: str
    before: str
    after: str
    change: str


def titled(accuracy: str) -> str:
    """What an accuracy of that name is called in tables."""
    return ACCURACIES.get(accuracy, accuracy)


def accuracies(measured: Size) -> dict[str, float]:
    """What was measured of a model's accuracy, by its title."""
    if isinstance(measured, ModuleMeasurements):
        return {titled(name): value for name, value in measured.accuracy.items()}
    found = {title: getattr(measured, name, None) for name, title in ACCURACIES.items()}
    return {title: value for title, value in found.items() if value is not None}


def compare(before: Size, after: Size) -> list[Compared]:
    """The table before/after: sizes change by a share, accuracies by a difference; only what was measured."""
    lines = [
        Compared("parameters", f"{before.params:,}", f"{after.params:,}", _share(before.params, after.params)),
        Compared("GFLOPs", f"{before.gflops:.2f}", f"{after.gflops:.2f}", _share(before.gflops, after.gflops)),
        Compared(
            "latency, ms",
            f"{before.latency_ms:.1f}",
            f"{after.latency_ms:.1f}",
            _share(before.latency_ms, after.latency_ms),
        ),
    ]
    if before.file_bytes and after.file_bytes:
        was, now = (f"{size / 1e6:.2f}" for size in (before.file_bytes, after.file_bytes))
        lines.insert(1, Compared("file, MB", was, now, _share(before.file_bytes, after.file_bytes)))
    now_by_title = accuracies(after)
    for title, accuracy in accuracies(before).items():
        if (left := now_by_title.get(title)) is not None:
            lines.append(Compared(title, f"{accuracy:.4f}", f"{left:.4f}", difference(accuracy, left)))
    return lines


def difference(before: float, after: float) -> str:
    """Of two accuracies as they are shown, so that the three numbers add up."""
    return f"{round(after, 4) - round(before, 4):+.4f}"


def _share(before: float, after: float) -> str:
    return f"{100 * (after / before - 1):+.1f} %" if before else ""
