"""Results of a run of pytest as Markdown, JSON and a page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from seqprune.atomic import write_text
from seqprune.testing.contracts import CONTRACTS, Result
from seqprune.testing.tables import Row, by_contract, by_network, markdown, page, reason_lines, versions


def write(
    cases: Sequence[Mapping[str, Any]],
    figures: Mapping[str, Any],
    files: Mapping[str, str | None],
    step_summary: str | None,
) -> None:
    """Writes what is asked for.

    Args:
        cases: of contracts, each with pruner, network, contract, state and reason.
        figures: of the model under test.
        files: paths of ``summary``, ``json`` and ``page``.
        step_summary: a file that the Markdown is appended to, as GitHub shows it beside a job.
    """
    tables = _tables(cases, figures)
    for asked in filter(None, files.values()):
        Path(asked).parent.mkdir(parents=True, exist_ok=True)
    text = "\n\n".join(("## Conformance of pruning", *(f"### {k}\n\n{markdown(v)}" for k, v in tables.items()))) + "\n"
    if summary := files.get("summary"):
        write_text(Path(summary), text)
    if step_summary:
        with Path(step_summary).open("a", encoding="utf-8") as file:
            file.write(text)
    if path := files.get("json"):
        content = {"versions": versions(), "figures": dict(figures), "cases": list(cases)}
        write_text(Path(path), json.dumps(content, indent=1, ensure_ascii=False))
    if path := files.get("page"):
        about = ", ".join(f"{name} {version}" for name, version in versions().items())
        write_text(Path(path), page("Conformance of pruning", about, tables))


def _tables(cases: Sequence[Mapping[str, Any]], figures: Mapping[str, Any]) -> dict[str, list[list[str]]]:
    found: dict[tuple[str, str], dict[str, Result]] = {}
    for case in cases:
        result = Result(case["contract"], case["state"], case["reason"])
        found.setdefault((case["pruner"], case["network"]), {})[result.contract] = result
    rows = [
        Row(pruner, network, {name: results[name] for name in CONTRACTS if name in results})
        for (pruner, network), results in sorted(found.items())
    ]
    pruners = list(dict.fromkeys(row.pruner for row in rows))
    tables: dict[str, list[list[str]]] = {}
    if rows:
        tables |= {"Contracts": by_contract(rows, pruners), "Networks": by_network(rows, pruners)}
        reasons = reason_lines(rows, pruners)
        tables |= {"Reasons": reasons} if len(reasons) > 1 else {}
    if figures:
        shown = [
            [name.replace("_", " "), f"{v:.4g}" if isinstance(v, float) else str(v)] for name, v in figures.items()
        ]
        tables["Figures"] = [["", "pruned"], *shown]
    return tables
