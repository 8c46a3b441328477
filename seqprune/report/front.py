"""The pruned network beside the trivial ways to less: smaller images, and eight bits; as a table and on the page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from seqprune.report.parts import Cell, Part, number
from seqprune.report.plot import curves, key
from seqprune.report.record import titled

Plain = Mapping[str, Any]
HEAD = ("network", "px", "operations", "ms", "time")
WAYS = {
    ("unpruned", 32): "unpruned, smaller images",
    ("unpruned", 8): "unpruned, eight bits",
    ("pruned", 32): "pruned",
    ("pruned", 8): "pruned, eight bits",
}


def cells(front: Sequence[Plain]) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the table; see :class:`seqprune.engine.front.Point`."""
    name = next(iter(front[0]["accuracy"]))
    whole = number(front[0]["accuracy"][name])
    on_squares = next((number(point["in_floats"]) for point in front if point.get("in_floats")), None)
    rows = []
    for point in front:
        score, squares = number(point["accuracy"].get(name)), number(point.get("in_floats"))
        small = point.get("bits", 32) == 8
        beside = whole if squares is None else on_squares
        rows.append(
            [
                f"{point['what']}{', int8' if small else ''}",
                str(point["imgsz"]),
                f"{float(point['share_of_operations']):.1%}",
                f"{float(point['ms']['median']):.1f}",
                f"{float(point['share_of_time']):.1%}",
                "" if score is None else f"{score:.4f}" + ("" if squares is None else f" ({squares:.4f} in floats)"),
                "" if score is None or not beside else f"{score / beside:.1%}",
            ]
        )
    return [*HEAD, titled(name), "stays"], rows


def part(report: Plain) -> Part | None:
    """The section of the page; ``None`` where nothing trivial was measured."""
    front = report.get("front") or ()
    if not front:
        return None
    name = next(iter(front[0]["accuracy"]))
    series: dict[str, list[tuple[float, float]]] = {}
    for point in front:
        if (score := number(point["accuracy"].get(name))) is not None:
            way = WAYS[str(point["what"]), int(point.get("bits", 32))]
            series.setdefault(way, []).append((100 * float(point["share_of_time"]), score))
    label = f"{titled(name)} over time, % of the unpruned"
    says: Callable[[str, float, float], str] = lambda way, x, y: f"{way}: {x:.1f} %, {y:.4f}"  # noqa: E731
    drawn = curves(label, "time, % of the unpruned network's", series, says=says, zero=False)
    head, rows = cells(front)
    timed = report.get("timed") or {}
    where = ", ".join(str(timed[each]) for each in ("runtime", "version", "processor") if timed.get(each))
    about = f"What anybody could do without pruning, measured in the same run. Time of one image in {where or 'torch'}."
    if any(point.get("bits", 32) == 8 for point in front):
        about += " Eight bits are measured as exported files, on squares, beside the same in floats."
    return Part(
        "front",
        "Beside the trivial ways",
        about,
        picture=Markup(key(list(series)) + drawn),  # noqa: S704 - both escape what they are given
        head=[Cell(head[0]), *(Cell(text, "number") for text in head[1:])],
        rows=[[Cell(row[0], "name"), *(Cell(text, "number") for text in row[1:])] for row in rows],
    )
