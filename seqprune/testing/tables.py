"""The matrix as Markdown and as a page: who holds which contract, where, and why not."""

from __future__ import annotations

import html
import platform
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata

from seqprune.testing.contracts import CONTRACTS, Result, State

BAD: tuple[State, ...] = ("fails", "crashed", "out of time", "not run")
"""States that count as failures; what is blocked failed elsewhere already."""
LIBRARIES = ("seqprune", "torch", "torchvision", "ultralytics", "timm", "torch-pruning")
_SHORT = 160


@dataclass(frozen=True)
class Row:
    """One pruner on one network.

    Attributes:
        pruner: its name.
        subject: the network's.
        results: by contract.
        seconds: that it took.
    """

    pruner: str
    subject: str
    results: Mapping[str, Result]
    seconds: float = 0.0

    @property
    def failed(self) -> list[str]:
        """Contracts that do not hold; those that only rest on one of them left out."""
        return [name for name, result in self.results.items() if result.state in BAD]

    @property
    def held(self) -> int:
        """How many hold."""
        return sum(result.state == "holds" for result in self.results.values())


def versions() -> dict[str, str]:
    """Of Python and of the libraries that are installed."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def cell_text(row: Row | None) -> str:
    """``✓ 12`` where all that were asked hold, the contracts that do not otherwise."""
    if row is None:
        return ""
    if not row.failed:
        return f"✓ {row.held}" if row.held else "–"
    states = {row.results[name].state for name in row.failed}
    if states == {"not run"}:
        return "not run"
    return f"✗ {', '.join(row.failed)}"


def by_network(rows: Iterable[Row], pruners: Sequence[str]) -> list[list[str]]:
    """A line a network, a column a pruner, a head before them."""
    rows = list(rows)
    found = {(row.subject, row.pruner): row for row in rows}
    subjects = list(dict.fromkeys(row.subject for row in rows))
    lines = [["network", *pruners]]
    return lines + [[name, *(cell_text(found.get((name, pruner))) for pruner in pruners)] for name in subjects]


def by_contract(rows: Iterable[Row], pruners: Sequence[str]) -> list[list[str]]:
    """A line a contract, a column a pruner: of the networks where it was asked, on how many it holds."""
    rows = list(rows)
    lines = [["contract", *pruners]]
    for name in CONTRACTS:
        cells = [f"**{name}**: {CONTRACTS[name].law.splitlines()[0]}"]
        for pruner in pruners:
            states = [row.results[name].state for row in rows if row.pruner == pruner and name in row.results]
            asked = [state for state in states if state not in ("not applicable", "blocked", "not run")]
            blocked = states.count("blocked")
            cells.append(f"{asked.count('holds')} of {len(asked)}" + (f" ({blocked} blocked)" if blocked else ""))
        lines.append(cells)
    return lines


def reasons(rows: Iterable[Row], pruner: str) -> list[tuple[str, str, list[str]]]:
    """Why contracts do not hold: contract, reason without its numbers, and on which networks, the most first."""
    groups: dict[tuple[str, str], tuple[str, list[str]]] = {}
    for row in rows:
        if row.pruner != pruner:
            continue
        for name in row.failed:
            reason = row.results[name].reason
            key = (name, re.sub(r"[\w.]*[\d._][\w.,]*", "N", reason))
            groups.setdefault(key, (reason, []))[1].append(row.subject)
    ordered = sorted(groups.items(), key=lambda group: -len(group[1][1]))
    return [(name, reason, subjects) for (name, _), (reason, subjects) in ordered]


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """A table."""
    rows = [f"| {' | '.join(cell.replace('|', '¦') for cell in line)} |" for line in lines]
    return "\n".join((rows[0], "|---" * len(lines[0]) + "|", *rows[1:]))


def page(title: str, about: str, tables: Mapping[str, Sequence[Sequence[str]]]) -> str:
    """One page that needs nothing beside it."""
    parts = []
    for heading, lines in tables.items():
        head = "".join(f"<th>{html.escape(cell)}</th>" for cell in lines[0])
        body = "".join(
            "<tr>" + "".join(f'<td class="{_kind(cell)}">{_inline(cell)}</td>' for cell in line) + "</tr>"
            for line in lines[1:]
        )
        parts.append(
            f"<h2>{html.escape(heading)}</h2><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        )
    return _PAGE.format(title=html.escape(title), about=html.escape(about), body="".join(parts))


def _inline(cell: str) -> str:
    """The bold and the code of a cell's Markdown."""
    text = re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", html.escape(cell))
    return re.sub(r"(`+)(.+?)\1", r"<code>\2</code>", text)


def _kind(cell: str) -> str:
    return {"✓": "good", "✗": "bad", "–": "none"}.get(cell[:1], "")


def reason_lines(rows: Iterable[Row], pruners: Collection[str]) -> list[list[str]]:
    """A line a kind of failure."""
    rows = list(rows)
    lines = [["pruner", "contract", "what was seen, the first of its kind", "on"]]
    for pruner in pruners:
        for name, reason, subjects in reasons(rows, pruner):
            where = ", ".join(subjects[:3]) + (f" and {len(subjects) - 3} more" if len(subjects) > 3 else "")
            lines.append([pruner, name, reason if len(reason) <= _SHORT else reason[:_SHORT] + "…", where])
    return lines


def between(text: str, name: str, content: str) -> str:
    """``text`` with what stands between ``<!-- NAME -->`` and ``<!-- end of NAME -->`` replaced.

    Raises:
        ValueError: the marks are not there.
    """
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"there is no {begin} … {end} in the text: put both where the table is to stand")
    return f"{before}{begin}\n{content.strip()}\n{end}{after}"


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; }}
table {{ border-collapse: collapse; font-size: 13px; margin-bottom: 2rem; }}
th, td {{ border: 1px solid #8884; padding: .25rem .5rem; text-align: left; vertical-align: top; }}
thead th {{ position: sticky; top: 0; background: Canvas; }}
.good {{ background: #2a92; }} .bad {{ background: #d332; }} .none {{ color: #888; }}
:root {{ color-scheme: light dark; }}
</style></head><body><h1>{title}</h1><p>{about}</p>{body}</body></html>
"""
