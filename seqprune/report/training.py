"""The page of a training: accuracy and losses epoch by epoch, made of ``report.json`` in its folder."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from seqprune.engine.portrait import circumstances
from seqprune.engine.record import Trained, versions
from seqprune.errors import InputError
from seqprune.plain import UnreadableError, text_of
from seqprune.report import plot
from seqprune.report.parts import Cell, Part, grouped, number
from seqprune.report.templating import rendered

KIND = "training"
Epochs = Sequence[tuple[int, Mapping[str, Any]]]
_ACCURACY = ("metrics/mAP50-95", "metrics/mAP50(", "metrics/accuracy_top")
"""How columns of accuracy that are drawn begin; precision and recall are in the table."""


def plain(trained: Trained, model: str, data: str) -> dict[str, Any]:
    """What ``report.json`` of a training says.

    Raises:
        InputError: its ``results.csv`` cannot be read.
    """
    return {
        "kind": KIND,
        "model": model,
        "data": data,
        "best": str(trained.best.relative_to(trained.folder)),
        "bytes": trained.best.stat().st_size,
        "shape": "the shape it had" if trained.plan is None else "the plan's shape",
        "metrics": {name: number(value) for name, value in trained.metrics.items()},
        "epochs": _rows(trained.folder / "results.csv"),
        "made": circumstances(),
        "versions": versions(),
    }


def _rows(path: Path) -> list[dict[str, float]]:
    """An epoch a row, numbers by the names of their columns."""
    try:
        found = list(csv.DictReader(text_of(path).splitlines(), skipinitialspace=True))
        numbers = [{name.strip(): float(text) for name, text in row.items() if name and text} for row in found]
    except (UnreadableError, ValueError, AttributeError, csv.Error) as error:
        raise InputError(f"{path}: {error}; it is what Ultralytics writes, a row of numbers an epoch") from error
    return [{name: value for name, value in row.items() if math.isfinite(value)} for row in numbers]


def page(report: Mapping[str, Any]) -> str:
    """The page of a training as text: one self-contained HTML document, everything from the report escaped."""
    epochs = [(int(row["epoch"]), row) for row in report["epochs"]]
    parts = [_drawn("accuracy", "Accuracy", "On the validation images, epoch by epoch.", _accuracies(epochs))]
    parts += [_drawn("losses", "Losses", "Their sum, epoch by epoch.", _losses(epochs)), _table(report, epochs)]
    made = {key: value for key, value in (report.get("made") or {}).items() if value is not None}
    parts.append(grouped([("Run", made), ("Versions", report["versions"])]))
    count = f"{len(epochs)} epoch{'s' * (len(epochs) != 1)}"
    return rendered(
        "run.html",
        title=f"{Path(report['model']).name}: trained for {count}",
        subtitle=f"{report['model']} on {report['data']}",
        verdict=f"{report['best']}: the best weights, {float(report['bytes']) / 1e6:.2f} MB, in {report['shape']}.",
        parts=[part for part in parts if part is not None],
    )


def _accuracies(epochs: Epochs) -> dict[str, list[tuple[int, float]]]:
    names = dict.fromkeys(name for _, row in epochs for name in row if name.startswith(_ACCURACY))
    return {name.removeprefix("metrics/"): _course(epochs, [name]) for name in names}


def _losses(epochs: Epochs) -> dict[str, list[tuple[int, float]]]:
    found = {}
    for kind, title in (("train/", "train images"), ("val/", "validation images")):
        names = list(dict.fromkeys(name for _, row in epochs for name in row if name.startswith(kind)))
        found[title] = _course(epochs, names)
    return {title: points for title, points in found.items() if points}


def _course(epochs: Epochs, names: Sequence[str]) -> list[tuple[int, float]]:
    """The sum of columns over the epochs in which all of them were measured."""
    every = ((epoch, [number(row.get(name)) for name in names]) for epoch, row in epochs)
    known = ((epoch, [value for value in values if value is not None]) for epoch, values in every)
    return [(epoch, sum(values)) for epoch, values in known if names and len(values) == len(names)]


def _drawn(name: str, title: str, about: str, series: Mapping[str, Sequence[tuple[int, float]]]) -> Part | None:
    series = {key: points for key, points in series.items() if points}
    if not series:
        return None
    drawn = plot.curves(f"{title} over epochs", "epoch", series, says=_said)
    return Part(name, title, about, picture=Markup(plot.key(list(series)) + drawn))  # noqa: S704 - escaped there


def _said(name: str, epoch: float, value: float) -> str:
    return f"{name}, epoch {epoch:g}: {value:.4f}"


def _table(report: Mapping[str, Any], epochs: Epochs) -> Part | None:
    """What was measured of the best weights, beside the first and the last epoch."""
    names = [name for name, value in report["metrics"].items() if number(value) is not None]
    if not names or not epochs:
        return None
    head = [Cell("measured"), *(Cell(text, "number") for text in ("first epoch", "last epoch", "best weights"))]
    rows = [
        [Cell(name.removeprefix("metrics/")), *(_figure(at.get(name)) for at in (epochs[0][1], epochs[-1][1])),
         _figure(report["metrics"][name])]
        for name in names
    ]  # fmt: skip
    return Part("figures", "Figures", "Of the best weights as they were measured at the end.", head=head, rows=rows)


def _figure(value: object) -> Cell:
    found = number(value)
    return Cell("" if found is None else f"{found:.4f}", "number")
