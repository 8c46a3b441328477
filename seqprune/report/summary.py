"""One run in a few lines: what a notebook or a prompt shows of a result."""

from __future__ import annotations

import sys
from dataclasses import asdict
from html import escape
from pathlib import Path

from seqprune.engine.record import Record, Size
from seqprune.report.record import compare


def title(record: Record) -> str:
    """``yolov8n.pt, preset fast: 46 layers pruned, compact``."""
    pruned = sum(step.status == "pruned" for step in record.steps)
    tuned = f", fine-tuned for {record.finetune} epochs" if record.finetune else ""
    layers = f"{pruned} layer{'s' * (pruned != 1)}"
    return f"{Path(record.model).name}, preset {record.preset}: {layers} pruned, {record.mode}{tuned}"


def proof(record: Record) -> str:
    """How far the masked and the compact network are apart."""
    return f"compact and masked differ by {record.verify.max_rel:.1e} of the largest value"


def text(record: Record) -> str:
    """The table before/after in plain text."""
    rows = [("", "before", "after", "change")]
    rows += [(line.what, line.before, line.after, line.change) for line in compare(record.before, record.after)]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(row[column].rjust(widths[column]) for column in range(1, 4))]).rstrip()
        for row in rows
    ]
    return "\n".join([title(record), *lines, proof(record)])


def html(record: Record) -> str:
    """The same as a table of HTML, everything from the record escaped."""
    head = "".join(f"<th>{word}</th>" for word in ("", "before", "after", "change"))
    rows = "".join(
        "<tr>"
        + "".join(f"<td>{escape(cell)}</td>" for cell in (line.what, line.before, line.after, line.change))
        + "</tr>"
        for line in compare(record.before, record.after)
    )
    return (
        f"<p>{escape(title(record))}</p><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
        f"<p>{escape(proof(record))}</p>"
    )


def measured(size: Size) -> dict[str, float]:
    """What was measured of a network, by the names in ``report.json``; without what was not."""
    return {name: value for name, value in asdict(size).items() if value is not None and value == value}


def is_interactive() -> bool:
    """Whether somebody sits before a prompt or a notebook."""
    return hasattr(sys, "ps1") or ("IPython" in sys.modules and bool(_shell()))


def _shell() -> object:
    return getattr(sys.modules["IPython"], "get_ipython", lambda: None)()
