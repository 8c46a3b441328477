"""One benchmark as a row of the page: its name, what it took, its ratios, and every run."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from benchmarks.compare import Verdict
from benchmarks.dashboard.charts import Dot, Line, Mark, decades, number, over_commits, seconds, side_by_side
from benchmarks.dashboard.series import Group, Point, Series, title_of

RUNS_LISTED = 20
MARKS: dict[Verdict, Mark] = {Verdict.REGRESSION: "worse", Verdict.IMPROVEMENT: "better"}
GLYPHS = {Verdict.REGRESSION: "▲", Verdict.IMPROVEMENT: "▼", Verdict.UNEVEN: "◆"}


def row(series: Series, group: Group, subject: str, settings: int) -> str:
    """A benchmark; ``settings`` is on how many kinds of devices there are runs at all."""
    title, parameters = title_of(series.fullname)
    verdict = series.verdict()
    about = [f"<h4>{escape(title)}</h4>", f'<div class="parameters">{escape(parameters)}</div>' if parameters else ""]
    if settings > 1:
        about.append(f'<div class="parameters">{escape(series.setting)}</div>')
    if not series.current:
        about.append(f'<div class="badge">not in the latest run, last seen at {escape(series.latest.run.short)}</div>')
    since = series.slow_since()
    if since is not None and verdict is not Verdict.REGRESSION:
        factor, commit = number(series.latest.standing.factor), escape(since.run.short)
        about.append(f'<div class="badge worse">{factor} × its best level, since {commit}</div>')
    if verdict is not Verdict.SAME:
        style = MARKS.get(verdict, "uneven")
        about.append(f'<div class="badge {style}">{mark(verdict)} {escape(said(series.latest))}</div>')
    about.append(_figures(series.latest))
    words = " ".join((subject, group.name, title, parameters, series.setting, verdict.value))
    changed = "" if verdict is Verdict.SAME and since is None else ' data-changed="yes"'
    tiles = [_time(series), _beside(series, group), *(_ratio(series, name) for name in series.ratios)]
    tiles += [_quality(series, name) for name in series.latest.row.quality]
    return (
        f'<article class="row" id="{series.anchor}" data-words="{escape(words)}"{changed}>\n'
        f"<div>{''.join(about)}</div>\n"
        f'<div class="tiles">\n{chr(10).join(tile for tile in tiles if tile)}\n</div>\n{_runs(series)}\n</article>'
    )


def mark(verdict: Verdict) -> str:
    """A verdict as a shape, which does not need its colour."""
    return f'<span class="glyph" aria-hidden="true">{GLYPHS[verdict]}</span>'


def said(point: Point) -> str:
    """A verdict in words."""
    if point.change is None:
        return ""
    if point.verdict is Verdict.REGRESSION:
        best = point.standing.factor
        also = "" if abs(best / point.standing.since - 1) < 0.01 else f", {number(best)} × its best level"
        return f"regression: {number(point.standing.since)} × as slow as before{also}"
    if point.verdict is Verdict.IMPROVEMENT:
        return f"improvement: {number(1 / point.standing.since)} × as fast as before"
    if point.verdict is Verdict.UNEVEN:
        return "uneven: one ratio moved without the others"
    return "unchanged"


def moved(factor: float) -> str:
    """A change in per cent, or as a factor where it is large."""
    if not 0.5 < factor < 2:
        return f"× {number(factor)}"
    percent = round((factor - 1) * 100)
    return f"+{percent} %" if percent > 0 else f"−{-percent} %" if percent else "± 0 %"


def faster(ratio: float) -> str:
    """A ratio of times in words."""
    if 0.995 < ratio < 1.005:
        return "as fast"
    return f"{number(1 / ratio)} × faster" if ratio < 1 else f"{number(ratio)} × slower"


def beside_span(group: Group) -> tuple[float, float]:
    """The axis of time that a group's benchmarks share."""
    rows = [series.latest.row for series in group.series]
    return decades(value for each in rows for value in (each.seconds, *each.beside.values()))


def _tile(label: str, value: str, note: str, drawn: str) -> str:
    return (
        f'<figure class="tile"><figcaption class="label">{label}</figcaption>'
        f'<div class="value">{value}</div><div class="note">{note}</div>{drawn}</figure>'
    )


def _beside(series: Series, group: Group) -> str:
    if len(group.series) == 1 and not series.latest.row.beside:
        return ""
    latest = series.latest.row
    words = ", ".join(f"{name} {seconds(value)}" for name, value in sorted(latest.beside.items()))
    title = f"This took {seconds(latest.seconds)}{'; ' + words if words else ''}"
    names = [name for name in series.ratios if name in latest.beside]
    first = f"{seconds(latest.beside[names[0]])}<small>{escape(names[0])}</small>" if names else ""
    note = ", ".join(f"{name} {seconds(latest.beside[name])}" for name in names[1:])
    drawn = side_by_side(latest.seconds, latest.beside, beside_span(group), title)
    return _tile("Side by side", first, escape(note), drawn)


def _time(series: Series) -> str:
    before = series.time_before()
    note = "" if len(series.points) == 1 else "other machine before"
    if before is not None:
        note = moved(series.latest.row.seconds / before.row.seconds)
    lines = []
    for number_, machine in enumerate(series.machines()):
        dots = tuple(
            Dot(p.place, p.row.seconds, f"{p.run.name}: {seconds(p.row.seconds)}, {machine.cpu}")
            for p in series.points
            if p.run.machine == machine
        )
        lines.append(Line(dots, "other" if number_ else "main"))
    title = f"Time over {len(series.points)} runs, latest {seconds(series.latest.row.seconds)}"
    if len(lines) > 1:
        title += f"; {len(lines)} machines, not joined"
    return _tile("Time", seconds(series.latest.row.seconds), note, over_commits(lines, series.runs, title))


def _ratio(series: Series, name: str) -> str:
    latest = series.latest
    dots = tuple(
        Dot(
            p.place,
            p.row.ratios[name],
            f"{p.run.name}: {number(p.row.ratios[name])} × the {name}",
            _marked(p),
            p.row.spreads.get(name, 0.0),
        )
        for p in series.points
        if name in p.row.ratios
    )
    ratio, factor = latest.row.ratios[name], latest.change.factors().get(name) if latest.change else None
    value = f"{number(ratio)} ×" if name == "floor" else faster(ratio)
    notes = [] if name == "floor" else [number(ratio)]
    notes += [] if factor is None else [moved(factor)]
    notes += [f"± {round(100 * latest.row.spreads[name])} %"] if name in latest.row.spreads else []
    notes += ["timed once"] if name in latest.row.once else []
    note = ", ".join(notes)
    if _marked(latest):
        note = f"{GLYPHS[latest.verdict]} {note}"
    title = f"Ratio to the {name} over {len(dots)} runs, latest {number(ratio)}"
    worse = [p.run.short for p in series.points if p.verdict is Verdict.REGRESSION]
    if worse:
        title += f"; regressed at {', '.join(worse)}"
    drawn = over_commits([Line(dots)], series.runs, title, one=True)
    return _tile(f"Ratio to the {escape(name)}", value, note, drawn)


def _quality(series: Series, name: str) -> str:
    """A figure of which more is better."""
    dots = tuple(
        Dot(p.place, p.row.quality[name], f"{p.run.name}: {number(p.row.quality[name])}")
        for p in series.points
        if p.row.quality.get(name, 0) > 0
    )
    words, value = name.replace("_", " "), series.latest.row.quality[name]
    best = max((dot.value for dot in dots), default=value)
    note = f"{number(value / best)} of its best" if best > value else ""
    drawn = over_commits([Line(dots)], series.runs, f"{words} over {len(dots)} runs, latest {number(value)}")
    return _tile(escape(words), number(value), note, drawn)


def _marked(point: Point) -> Mark:
    return MARKS.get(point.verdict, "")


def _figures(point: Point) -> str:
    if not point.row.figures:
        return ""
    pairs = (
        f"<div><dt>{escape(name.replace('_', ' '))}</dt><dd>{escape(_figure(value))}</dd></div>"
        for name, value in point.row.figures.items()
    )
    return f'<dl class="figures">{"".join(pairs)}</dl>'


def _figure(value: str | float | bool) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return number(value) if isinstance(value, float) else value


def _runs(series: Series) -> str:
    listed = series.points[: -RUNS_LISTED - 1 : -1]
    figures = tuple(dict.fromkeys(name for point in listed for name in point.row.figures))
    names = tuple(dict.fromkeys(name for point in listed for name in point.row.ratios))
    titles = [
        "commit",
        "time",
        *(f"to the {name}" for name in names),
        "change",
        *(n.replace("_", " ") for n in figures),
    ]
    head = [escape(title) for title in titles]
    lines = []
    for point in listed:
        change = said(point) if point.verdict is not Verdict.SAME else ""
        glyph = f"{GLYPHS[point.verdict]} " if change else ""
        cells = [
            f"<code>{escape(point.run.short)}</code>",
            seconds(point.row.seconds),
            *(_of(point.row.ratios.get(name)) for name in names),
            escape(glyph + change.split(":")[0]),
            *(escape(_figure(point.row.figures[name])) if name in point.row.figures else "" for name in figures),
        ]
        lines.append(_line("td", cells))
    count = len(series.points)
    summary = f"Every run ({count})" if count <= RUNS_LISTED else f"The latest {RUNS_LISTED} of {count} runs"
    table = f"<thead>{_line('th', head)}</thead><tbody>{''.join(lines)}</tbody>"
    return f"<details><summary>{summary}</summary>{scrolled(table, title_of(series.fullname)[0])}</details>"


def scrolled(table: str, label: str) -> str:
    """A table that scrolls within itself, by the keyboard too."""
    return f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(label)}"><table>{table}</table></div>'


def _of(ratio: float | None) -> str:
    return "" if ratio is None else f"{number(ratio)} ×"


def _line(tag: str, cells: Iterable[str]) -> str:
    return "<tr>" + "".join(f"<{tag}{'' if n == 0 else _NUMBER}>{c}</{tag}>" for n, c in enumerate(cells)) + "</tr>"


_NUMBER = ' class="number"'
