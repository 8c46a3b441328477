"""What a comparison found: a row a method and target, as JSON, a table and plots."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

from seqprune.atomic import write_text
from seqprune.report.plot import document, key, lines, table
from seqprune.report.record import titled

UNPRUNED = "unpruned"
COUNTED = {"params": "parameters", "flops": "operations"}
_OPTIONAL = ("runs", "imgsz", "accuracy", "times", "file_bytes", "in_floats")
FRONT = "front"
"""What the plots call the rows that no other is both cheaper and better than."""


@dataclass(frozen=True)
class Row:
    """One method at one target; what was not measured is ``None``.

    Attributes:
        method: its name, or ``unpruned``.
        target: share that was asked for, of the parameters or operations.
        params: parameters that stay.
        share: the share that stays of what is counted.
        gflops: of one image.
        latency_ms: of one image: what the unpruned network takes, by the ratio of both, timed in turns.
        accuracy: on the val images, by name; the first is what is compared.
        seconds: that the pruning took, without fine-tuning.
        reason: why the method gave nothing; empty where it did.
        imgsz: side of the images in pixels, where that is what the method changes.
        times: milliseconds of one image by runtime, where any were asked for; taken as ``latency_ms`` is.
        file_bytes: of the file that it is saved to.
        in_floats: of a row in eight bits the first accuracy of the same export in floats: both are measured on squares.
        runs: the first accuracy after each calibration subset, where there are several: all else is a mean over them
            then, but the latency, which is the first one's.
    """

    method: str
    target: float
    params: int | None = None
    share: float | None = None
    gflops: float | None = None
    latency_ms: float | None = None
    accuracy: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    reason: str = ""
    runs: tuple[float, ...] = ()
    imgsz: int | None = None
    times: dict[str, float] = field(default_factory=dict)
    file_bytes: int | None = None
    in_floats: float | None = None

    def __str__(self) -> str:
        """On one line, as soon as it is known."""
        name = self.method if self.method == UNPRUNED else f"{self.method} at {self.target:g}"
        if self.score is None:
            return f"{name}: {self.reason}"
        accuracy = f"{titled(next(iter(self.accuracy)))} {self.score:.4f}{self.spread}"
        return f"{name}: {self.params:,} parameters, {self.gflops:.2f} GFLOPs, {accuracy}"

    @property
    def score(self) -> float | None:
        """The accuracy that is compared."""
        return next(iter(self.accuracy.values()), None)

    @property
    def spread(self) -> str:
        """The least and the most that several subsets gave, or what floats give of what is in eight bits."""
        if self.in_floats is not None:
            return f" ({self.in_floats:.4f} in floats)"
        return f" ({min(self.runs):.4f}–{max(self.runs):.4f})" if self.runs else ""

    def plain(self) -> dict[str, Any]:
        """As JSON holds it, without what there is not: ``runs`` of one subset, ``imgsz`` where it is that of all."""
        return {name: value for name, value in asdict(self).items() if name not in _OPTIONAL or value}

    @classmethod
    def of(cls, plain: dict[str, Any]) -> Row:
        return cls(**(plain | {"runs": tuple(plain.get("runs", ()))}))


def mean_of(rows: Sequence[Row]) -> Row:
    """One row of several that differ only in what the method looked at; of one, that row."""
    if len(rows) == 1:
        return rows[0]

    def mean(values: Sequence[float]) -> float:
        return float(sum(values)) / len(rows)

    means: dict[str, Any] = {name: mean([getattr(r, name) for r in rows]) for name in ("share", "gflops", "seconds")}
    known = [name for name in rows[0].accuracy if all(name in row.accuracy for row in rows)]
    accuracy = {name: mean([row.accuracy[name] for row in rows]) for name in known}
    params = round(mean([row.params or 0 for row in rows]))
    scores = tuple(row.score for row in rows if row.score is not None)
    return replace(rows[0], params=params, accuracy=accuracy, runs=scores, **means)


@dataclass(frozen=True)
class Comparison:
    """Rows, the unpruned network first, then target by target."""

    model: str
    data: str
    settings: dict[str, Any]
    rows: tuple[Row, ...]

    def to_json(self) -> str:
        return json.dumps(asdict(self) | {"rows": [row.plain() for row in self.rows]}, indent=2) + "\n"

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """Head and cells of the table, with the first two accuracies."""
        whole, second = self.rows[0].score, [*self.rows[0].accuracy][1:2]
        names = [titled(name) for name in [*self.rows[0].accuracy][:2]]
        places = [*self.rows[0].times]
        head = [*"method|target|share|parameters|file, MB|GFLOPs|ms".split("|"), *(f"ms, {name}" for name in places)]
        head += [*names[:1], "of unpruned", *names[1:], "seconds"]
        return head, [
            [
                row.method + (f" ({row.reason})" if row.reason else ""),
                f"{row.target:g}",
                _number(row.share, ".3f"),
                _number(row.params, ",d"),
                _number(row.file_bytes and row.file_bytes / 1e6, ".2f"),
                _number(row.gflops, ".2f"),
                _number(row.latency_ms, ".1f"),
                *(_number(row.times.get(name), ".1f") for name in places),
                _number(row.score, ".4f") + row.spread,
                _number(row.score / whole if row.score is not None and whole else None, ".1%"),
                *(_number(row.accuracy.get(name), ".4f") for name in second),
                f"{row.seconds:.1f}" if row.seconds else "–",
            ]
            for row in self.rows
        ]

    def to_markdown(self) -> str:
        head, rows = self.cells()
        marks = ["---", *(["---:"] * (len(head) - 1))]
        return "".join(f"| {' | '.join(cells)} |\n" for cells in (head, marks, *rows))

    def to_html(self) -> str:
        rest = [row for row in self.rows[1:] if row.score is not None]
        names = list(dict.fromkeys(row.method for row in rest))
        counted = self.settings.get("target", "parameters")
        size = ("share of the parameters", "share") if counted == "parameters" else ("parameters that stay", "params")
        axes: list[tuple[str, str, Callable[[Row], Any]]] = [
            ("Over parameters", size[0], attrgetter(size[1])),
            ("Over operations", "GFLOPs of one image", attrgetter("gflops")),
            ("Over time", "milliseconds for one image", attrgetter("latency_ms")),
        ]
        axes += [(f"Over time in {name}", "milliseconds for one image", _time_in(name)) for name in self.rows[0].times]
        plots = [self._plot(rest, *axis) for axis in axes]
        about = f"{self.model} on {self.data}; " + ", ".join(f"{name} {value}" for name, value in self.settings.items())
        pictures = f'{key([*names, FRONT])}<div class="plots large">{"".join(plots)}</div>'
        return document(f"Methods at equal {counted}", about, pictures, table(*self.cells()))

    def _plot(self, rows: Sequence[Row], title: str, unit: str, cost: Callable[[Row], Any]) -> str:
        """Accuracy over what networks cost; each method's line begins at the unpruned one."""
        whole = self.rows[0]
        series: dict[str, list[tuple[float, float]]] = {}
        for row in rows:
            if cost(row) is not None:
                series.setdefault(row.method, []).append((cost(row), row.score or 0.0))
        for its in series.values():
            its.append((cost(whole), whole.score or 0.0))
        spans = [(row.method, cost(row), min(row.runs), max(row.runs)) for row in rows if row.runs]
        if series:
            known = [(cost(row), row.score or 0.0) for row in (whole, *rows) if cost(row) is not None]
            series[FRONT] = front(known)
        return lines(title, unit, titled(next(iter(whole.accuracy), "accuracy")), series, spans)

    def write(self, folder: Path) -> None:
        """Writes ``compare.html``, ``compare.md`` and ``compare.json`` into a folder that exists."""
        for ending, text in (("html", self.to_html()), ("md", self.to_markdown()), ("json", self.to_json())):
            write_text(folder / f"compare.{ending}", text)


def front(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Of points of a cost and a worth, those that no other is as cheap and as good as, the cheapest first."""
    best, found = -math.inf, []
    for cost, worth in sorted(points, key=lambda point: (point[0], -point[1])):
        if worth > best:
            best = worth
            found.append((cost, worth))
    return found


def _time_in(runtime: str) -> Callable[[Row], Any]:
    return lambda row: row.times.get(runtime)


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
