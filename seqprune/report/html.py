"""One run as one page: nothing to load, light and dark, narrow and wide."""

from __future__ import annotations

from pathlib import Path

from seqprune.report.record import Record


def write_html(record: Record, path: Path) -> None:
    path.write_text(page(record), encoding="utf-8")


def page(record: Record) -> str:
    return record.model
