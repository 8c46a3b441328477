"""One run as one page: nothing to load, light and dark, narrow and wide."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from seqprune.atomic import write_text
from seqprune.engine.record import Record
from seqprune.engine.steps import StepReport
from seqprune.plain import on_a_page as escape
from seqprune.report.record import accuracies, compare

_STYLE = """
:root { color-scheme: light dark; --ground: #fcfcfb; --ink: #1d2126; --quiet: #646c75; --line: #dcdfe2;
  --was: #d5d9de; --now: #2b6cb0; --warn: #9a5b00; }
@media (prefers-color-scheme: dark) { :root { --ground: #15181b; --ink: #e6e8ea; --quiet: #98a1aa;
  --line: #31363c; --was: #3a4149; --now: #6aa9e9; --warn: #e0a54a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 2rem 1rem 4rem; font: 16px/1.5 system-ui, sans-serif;
  background: var(--ground); color: var(--ink); }
h1 { font-size: 1.6rem; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 2.5rem 0 .75rem; }
p { margin: .25rem 0; max-width: 44rem; }
.quiet { color: var(--quiet); overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th { font-weight: 500; color: var(--quiet); text-align: left; vertical-align: bottom; }
th, td { padding: .35rem 1.25rem .35rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
.number { text-align: right; white-space: nowrap; }
.layer { white-space: nowrap; }
.why { min-width: 16rem; }
.skipped { color: var(--warn); }
.bars { display: grid; grid-template-columns: max-content 1fr max-content; gap: .5rem 1rem; }
.bars > * { align-self: center; }
.bars svg { width: 100%; height: 1rem; display: block; }
.was { fill: var(--was); } .now { fill: var(--now); }
.key { display: inline-block; width: .7rem; height: .7rem; margin: 0 .3rem 0 0; }
.key + .key-text { margin-right: 1rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.25rem; margin: 0; }
dt { color: var(--quiet); } dd { margin: 0; overflow-wrap: anywhere; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(18rem, 1fr)); gap: 0 3rem; }
@media (max-width: 34rem) {
  .bars { grid-template-columns: 1fr max-content; gap: .1rem 1rem; grid-auto-flow: dense; }
  .bars svg { grid-column: 1 / -1; margin-bottom: .5rem; }
  .bars .layer { grid-column: 1; } .bars .number { grid-column: 2; } }
"""


def write_html(record: Record, path: str | Path) -> None:
    """Writes the page of a run."""
    write_text(path, page(record))


def page(record: Record) -> str:
    """The page as text: one self-contained HTML document, everything from the record escaped."""
    pruned = [step for step in record.steps if step.status == "pruned"]
    title = f"{Path(record.model).name}: {len(pruned)} of {len(record.steps)} layers pruned"
    sections = [
        _header(record, title),
        "<h2>Before and after</h2>",
        _comparison(record),
        "<h2>Channels of each layer</h2>",
        _bars(record.steps),
        "<h2>Steps, front to back</h2>",
        _steps(record.steps),
        _left_out("Unreadable images, left out", record.unreadable),
        _left_out("Unreadable images, left out of the measurements", record.unreadable_val),
        '<div class="columns">',
        f"<div><h2>Settings</h2>{_pairs(_settings(record))}</div>",
        f"<div><h2>Versions</h2>{_pairs(record.versions)}</div>",
        "</div>",
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(section for section in sections if section)
        + "\n</body>\n</html>\n"
    )


def _header(record: Record, title: str) -> str:
    shape = "taken out (compact)" if record.mode == "compact" else "zeroed (mask)"
    data = f"on {escape(record.data)}" if record.data else "without images"
    tuned = f"fine-tuned for {record.finetune} epochs" if record.finetune else "not fine-tuned"
    return (
        f"<h1>{escape(title)}</h1>\n"
        f'<p class="quiet">{escape(record.model)} {data}, preset {escape(record.preset)}, '
        f"seed {record.seed}</p>\n"
        f"<p>Channels are {shape}; {tuned}. On {'real images' if record.data else 'noise'} the compact and the "
        f"masked model differ by {record.verify.max_rel:.1e} of the largest value ({record.verify.max_abs:.1e} "
        "absolute).</p>"
    )


def _comparison(record: Record) -> str:
    rows = [
        (line.what, _number(line.before), _number(line.after), _number(line.change))
        for line in compare(record.before, record.after)
    ]
    note = ""
    if not accuracies(record.after):
        note = '\n<p class="quiet">Accuracy was not measured.</p>'
    return _table(("", _number("before"), _number("after"), _number("change")), rows) + note


def _bars(steps: Iterable[StepReport]) -> str:
    steps = tuple(steps)
    widest = max((step.channels for step in steps), default=1)
    rows = []
    for step in steps:
        label = f"{step.layer}: {step.active_after} of {step.channels} channels stay"
        rows.append(
            f'<span class="layer">{escape(step.layer)}</span>'
            f'<svg viewBox="0 0 {widest} 10" preserveAspectRatio="none" role="img"'
            f' aria-label="{escape(label)}">'
            f'<rect class="was" width="{step.channels}" height="10"/>'
            f'<rect class="now" width="{step.active_after}" height="10"/></svg>'
            f'<span class="number">{step.active_after} / {step.channels}</span>'
        )
    key = "".join(
        f'<svg class="key" viewBox="0 0 1 1"><rect class="{kind}" width="1" height="1"/></svg>'
        f'<span class="key-text">{text}</span>'
        for kind, text in (("now", "stay"), ("was", "removed"))
    )
    return f'<p class="quiet">{key}</p>\n<div class="bars">\n' + "\n".join(rows) + "\n</div>"


def _steps(steps: Iterable[StepReport]) -> str:
    titles = ("objects", "classes", "k", "before", "after", "seconds")
    head = ("layer", "block", *(_number(title) for title in titles), "")
    rows = []
    for step in steps:
        numbers = (step.objects, len(step.classes), step.k, step.active_before, step.active_after)
        others = ", ".join(name for name in step.members if name != step.layer)
        notes = [f"skipped: {step.reason}" if step.status == "skipped" else step.reason]
        notes += [f"decided together with {others}"] if others else []
        rows.append(
            (
                _Cell(step.layer, "layer"),
                "" if step.block is None else str(step.block),
                *(_number(str(number)) for number in numbers),
                _number(f"{step.seconds:.1f}"),
                _Cell("; ".join(filter(None, notes)), "why skipped" if step.status == "skipped" else "why"),
            )
        )
    return _table(head, rows)


def _left_out(title: str, names: tuple[str, ...]) -> str:
    if not names:
        return ""
    return f"<h2>{title}</h2>\n<p>{len(names)}: {escape(', '.join(names))}</p>"


def _settings(record: Record) -> dict[str, Any]:
    return {"mode": record.mode, "finetune": record.finetune} | record.settings


def _pairs(values: Mapping[str, Any]) -> str:
    return f"<dl>{''.join(f'<dt>{escape(n)}</dt><dd>{escape(str(v))}</dd>' for n, v in values.items())}</dl>"


class _Cell(str):
    """Text of a table cell with the classes it is styled by."""

    style: str

    def __new__(cls, text: str, style: str) -> _Cell:
        self = super().__new__(cls, text)
        self.style = style
        return self


def _number(text: str) -> _Cell:
    return _Cell(text, "number")


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    def line(cells: Iterable[str], tag: str) -> str:
        marked = ((cell, f' class="{cell.style}"' if isinstance(cell, _Cell) else "") for cell in cells)
        return "<tr>" + "".join(f"<{tag}{style}>{escape(cell)}</{tag}>" for cell, style in marked) + "</tr>"

    body = "\n".join(line(row, "td") for row in rows)
    table = f"<thead>{line(head, 'th')}</thead>\n<tbody>\n{body}\n</tbody>"
    return f'<div class="scroll"><table>\n{table}\n</table></div>'
