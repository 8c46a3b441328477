"""The page around the rows: what happened last, how to read it, where to find what, and which runs there are."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path

from markupsafe import Markup

from benchmarks.compare import Verdict
from benchmarks.dashboard.charts import key
from benchmarks.dashboard.rows import mark, row, said, scrolled
from benchmarks.dashboard.series import Group, Model, Series, Subject, title_of
from benchmarks.history import Run
from seqprune.report.templating import rendered

_HERE = Path(__file__).parent


def page(model: Model) -> str:
    """One self-contained HTML document; the same model gives the same text, and everything from files is escaped."""
    style, script = ((_HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    body = (
        '<a class="skip" href="#benchmarks">To the benchmarks</a>\n'
        f'<header>\n{_header(model)}\n</header>\n<div class="layout">\n{_contents(model)}\n<main id="benchmarks">\n'
        + "\n".join(_subject(subject, len(model.latest())) for subject in model.subjects)
        + f"\n{_all_runs(model)}\n</main>\n</div>\n"
        f"<footer>Written by <code>python -m benchmarks.dashboard</code>.</footer>\n<script>\n{script}</script>\n"
    )
    return rendered("base.html", title="seqprune benchmarks", style=Markup(style), body=Markup(body))  # noqa: S704


def _header(model: Model) -> str:
    latest = list(model.latest().values())
    parts = ["<div>\n<h1>seqprune benchmarks</h1>", *(f'<p class="quiet">{_where(run)}</p>' for run in latest)]
    parts.append(_status(model))
    for verdict in (Verdict.REGRESSION, Verdict.IMPROVEMENT, Verdict.UNEVEN):
        found = model.having(verdict)
        if found:
            parts.append(f'<ul class="changes">{"".join(_changed(series, verdict) for series in found)}</ul>')
    if lasting := [s for s in model.slow() if s.verdict() is not Verdict.REGRESSION]:
        parts.append("<p>Slower than the best level they had:</p>")
        parts.append(f'<ul class="changes">{"".join(_still_slow(series) for series in lasting)}</ul>')
    parts.append(f"</div>\n<div>\n{_how_to_read(model)}\n</div>")
    return "\n".join(parts)


def _where(run: Run) -> str:
    versions = ", ".join(f"{name} {run.versions[name]}" for name in ("torch", "python") if name in run.versions)
    branch = f" on {escape(run.branch)}" if run.branch else ""
    return (
        f"Latest run: <code>{escape(run.short)}</code>{branch}{_dirty(run)}, {run.measured:%d %B %Y}. "
        f"{escape(run.machine.cpu)}; {escape(run.machine.setting)}{'; ' + escape(versions) if versions else ''}."
    )


def _status(model: Model) -> str:
    worse, better = len(model.having(Verdict.REGRESSION)), len(model.having(Verdict.IMPROVEMENT))
    limit = f"{model.threshold:g} ×"
    improved = f" {_plural(better, 'improvement')}." if better else ""
    if len(model.runs) == len(model.latest()):
        text = f"The first run: later ones are compared with it, at a threshold of {limit}."
        return f'<p class="status"><span>{text}</span></p>'
    if worse:
        text = f"{_plural(worse, 'regression')} beyond {limit} in the latest run.{improved}"
        return f'<p class="status worse">{mark(Verdict.REGRESSION)}<span>{text}</span></p>'
    text = f"No regression beyond {limit} in the latest run.{improved}"
    return f'<p class="status"><span class="glyph" aria-hidden="true">✓</span><span>{text}</span></p>'


def _changed(series: Series, verdict: Verdict) -> str:
    title, parameters = title_of(series.fullname)
    name = f"{title}, {parameters}" if parameters else title
    style = {Verdict.REGRESSION: "worse", Verdict.UNEVEN: "uneven"}.get(verdict, "better")
    return (
        f'<li class="{style}">{mark(verdict)} <a href="#{series.anchor}">{escape(name)}</a> '
        f'<span class="quiet">{escape(said(series.latest))}</span></li>'
    )


def _still_slow(series: Series) -> str:
    title, parameters = title_of(series.fullname)
    name, since = f"{title}, {parameters}" if parameters else title, series.slow_since()
    return (
        f'<li class="worse">{mark(Verdict.REGRESSION)} <a href="#{series.anchor}">{escape(name)}</a> '
        f'<span class="quiet">{series.latest.standing.factor:.2f} ×, since {escape(since.run.short if since else "")}'
        "</span></li>"
    )


def _how_to_read(model: Model) -> str:
    keys = "".join(
        f"<span>{key(name)}{text}</span>"
        for name, text in (
            ("ours", "this benchmark"),
            ("floor", "floor, the least work that could give the answer"),
            ("predecessor", "the predecessor’s way"),
            ("unpruned", "the unpruned network"),
        )
    )
    return f"""<h2>How to read this</h2>
<p>A ratio is our time over another’s, measured in the same run; below 1 is faster. Times are those of the fastest
round; changes in per cent are since the run before.</p>
<p>Regressions are decided by ratios, never by absolute times, and by levels, not by single runs: a history is cut into
stretches of one level each, and a step is a regression where all ratios lie more than {model.threshold:g} × above the
best level they ever had on that kind of device, an improvement where all fall below 1/{model.threshold:g} of the level
before. Ten commits of 10 % are seen so. Where one ratio moves without the others (uneven), it is the other side that
changed; a ratio timed once decides only where it is alone. The band around a line is the spread of its rounds.</p>
<p>Times are joined by a line only where device, CPU and threads are the same; a dashed grey line is another machine’s.
Axes are logarithmic; those over commits span at least a factor of two, so that noise looks as small as it is.</p>
<div class="keys quiet">{keys}</div>
<div class="keys quiet"><span class="worse">{mark(Verdict.REGRESSION)} regression</span>
<span class="better">{mark(Verdict.IMPROVEMENT)} improvement</span>
<span class="uneven">{mark(Verdict.UNEVEN)} uneven</span></div>"""


def _contents(model: Model) -> str:
    items = []
    for subject in model.subjects:
        groups = "".join(
            f'<li><a href="#{_anchor(subject.name, group.name)}">{escape(_group_name(group))}</a></li>'
            for group in subject.groups
        )
        worse = sum(series.verdict() is Verdict.REGRESSION for series in subject.series())
        count = f' <span class="worse">{mark(Verdict.REGRESSION)} {worse}</span>' if worse else ""
        items.append(f'<li><a href="#{_anchor(subject.name)}">{escape(subject.name)}</a>{count}<ul>{groups}</ul></li>')
    return f"""<nav aria-label="Contents">
<form class="filter" role="search" hidden>
<label for="words">Filter</label><input type="search" id="words" autocomplete="off" placeholder="knee 64">
<label><input type="checkbox"> only what changed</label>
<output class="quiet" aria-live="polite"></output>
</form>
<ul>{"".join(items)}<li><a href="#runs">Runs</a></li></ul>
</nav>"""


def _subject(subject: Subject, settings: int) -> str:
    groups = "\n".join(_group(subject, group, settings) for group in subject.groups)
    return (
        f'<section class="subject" id="{_anchor(subject.name)}">\n<h2>{escape(subject.name)}</h2>\n{groups}\n</section>'
    )


def _group(subject: Subject, group: Group, settings: int) -> str:
    rows = "\n".join(row(series, group, subject.name, settings) for series in group.series)
    return (
        f'<section class="group" id="{_anchor(subject.name, group.name)}">\n'
        f"<h3>{escape(_group_name(group))}</h3>\n{rows}\n</section>"
    )


def _all_runs(model: Model) -> str:
    known = {run: number for number, run in enumerate(dict.fromkeys(id(run) for run in model.runs))}
    worse = [0] * len(known)
    for series in model.series():
        for point in series.points:
            worse[known[id(point.run)]] += point.verdict is Verdict.REGRESSION
    head = "".join(f"<th>{name}</th>" for name in _RUN_COLUMNS)
    lines = []
    for number in reversed(range(len(model.runs))):
        run = model.runs[number]
        marked = f"{mark(Verdict.REGRESSION)} {worse[number]}" if worse[number] else "0"
        versions = ", ".join(f"{name} {value}" for name, value in run.versions.items())
        machine = f"{run.machine.setting}; {run.machine.cpu}"
        lines.append(
            f'<tr><td><code>{escape(run.short)}</code>{_dirty(run)}</td><td class="short">{run.committed:%Y-%m-%d}</td>'
            f"<td>{escape(run.branch)}</td><td>{len(run.rows)}</td>"
            f'<td class="short worse">{marked}</td><td class="long">{escape(machine)}</td>'
            f'<td class="long">{escape(versions)}</td></tr>'
        )
    table = f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody>"
    return f'<section id="runs">\n<h2>Runs</h2>\n{scrolled(table, "Runs")}\n</section>'


_RUN_COLUMNS = ("commit", "committed", "branch", "benchmarks", "regressions", "machine", "versions")


def _group_name(group: Group) -> str:
    return re.sub(r"\((\d+), (\d+)\)", r"\1 × \2", group.name) or "Ungrouped"


def _dirty(run: Run) -> str:
    return ", with uncommitted changes" if run.dirty else ""


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _anchor(*names: str) -> str:
    return "-".join(re.sub(r"\W+", "-", name.lower()).strip("-") or "ungrouped" for name in names)
