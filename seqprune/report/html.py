"""One run as one page: nothing to load, light and dark, narrow, wide and printed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seqprune.atomic import write_text
from seqprune.engine.record import Record, Trained
from seqprune.errors import InputError
from seqprune.plain import UnreadableError, json_of, text_of
from seqprune.report import front, parts, training
from seqprune.report.templating import rendered

REPORT, DRAWN = "report.json", "drawn.json"
"""In a run's folder: its figures, and, where there is any, what the page draws beside them."""


def write_html(record: Record, path: str | Path) -> None:
    """Writes the page of a run."""
    write_text(path, page(record))


def write_training(trained: Trained, model: str, data: str) -> None:
    """Writes the figures and the page of a training into its folder.

    Raises:
        InputError: see :func:`seqprune.report.training.plain`.
    """
    report = training.plain(trained, model, data)
    write_text(trained.folder / REPORT, json.dumps(report, indent=2))
    write_text(trained.folder / "report.html", training.page(report))


def page(record: Record) -> str:
    """The page as text: one self-contained HTML document, everything from the record escaped."""
    return page_of(record.plain(), record.drawn())


def page_of(report: Mapping[str, Any], drawn: Mapping[str, Any]) -> str:
    """The same of files.

    Args:
        report: what ``report.json`` holds.
        drawn: what ``drawn.json`` beside it holds; empty without.

    Raises:
        InputError: they hold something else than a run writes.
    """
    try:
        return training.page(report) if report.get("kind") == training.KIND else _page_of_run(report, drawn)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise InputError(
            f"this is no report of a run ({error!r}): give the folder that `seqprune prune` or `finetune` wrote"
        ) from error


def _page_of_run(report: Mapping[str, Any], drawn: Mapping[str, Any]) -> str:
    names = {int(kind): str(name) for kind, name in (drawn.get("names") or {}).items()}
    found = [
        *(parts.glance(report), front.part(report), parts.pictures(drawn)),
        *(parts.network(report), parts.layers(report)),
        *(
            parts.along(report),
            parts.classes(report),
            parts.seen(drawn, names),
            parts.steps(report),
            parts.repairs(report),
        ),
        parts.made(report),
    ]
    title = f"{Path(report['model']).name}: {_done(report)}"
    return rendered(
        "run.html",
        title=title,
        subtitle=_subtitle(report),
        verdict=_verdict(report),
        parts=[part for part in found if part is not None],
    )


def _done(report: Mapping[str, Any]) -> str:
    """How many layers lost channels, and how many were made of two: each of these has a step of its own."""
    pairs = sum(layer.get("rank") is not None for layer in report.get("network") or ())
    pruned = sum(step["status"] == "pruned" for step in report["steps"]) - pairs
    layers = f"{pruned} of {len(report['steps']) - pairs} layers pruned"
    made = f"{pairs} convolution{'s' * (pairs != 1)} made of two"
    if not report["steps"]:
        return "nothing taken out"
    return layers if pairs < 1 else f"{made}, {layers}" if pruned > 0 else made


def page_of_folder(folder: Path, page: Path) -> None:
    """Writes the page of a run from what lies in its folder.

    Raises:
        InputError: it is no finished run's folder, its files say something else than a run does, or the page cannot be
            written.
    """
    try:
        found = {
            name: json_of(text_of(folder / name))
            for name in (REPORT, DRAWN)
            if name == REPORT or (folder / name).exists()
        }
    except UnreadableError as error:
        raise InputError(
            f"{folder}: {REPORT} {error}; give the folder of a finished run of `seqprune prune` or `finetune`"
        ) from error
    text = page_of(found[REPORT], found.get(DRAWN, {}))
    try:
        write_text(page, text)
    except OSError as error:
        raise InputError(f"{page} cannot be written ({error.strerror}): give another --out") from error


def _subtitle(report: Mapping[str, Any]) -> str:
    data = f"on {report['data']}" if report["data"] else "without images"
    date = str((report.get("made") or {}).get("date", ""))[:10]
    known = (f"{report['model']} {data}", f"preset {report['preset']}", f"seed {report['seed']}", date)
    return ", ".join(filter(None, known))


def _verdict(report: Mapping[str, Any]) -> str:
    shape = "taken out (compact)" if report["mode"] == "compact" else "zeroed (mask)"
    tuned = f"fine-tuned for {report['finetune']} epochs" if report["finetune"] else "not fine-tuned"
    verify = report["verify"]
    return (
        f"Channels are {shape}; {tuned}. On {'real images' if report['data'] else 'noise'} the compact and the "
        f"masked model differ by {float(verify['max_rel']):.1e} of the largest value "
        f"({float(verify['max_abs']):.1e} absolute)."
    )
