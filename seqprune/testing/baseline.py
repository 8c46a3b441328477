"""Figures of a pruned model that were accepted once, and what fell behind them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from seqprune.atomic import write_text
from seqprune.errors import InputError
from seqprune.testing.session import PruningReport
from seqprune.testing.tables import versions

FILE = "pruning-baseline.json"
ACCURACY = 0.005
"""Of mAP or top-1: less than that is another processor's rounding."""
TIME = 1.25
"""Times the stored share of the unpruned network's time."""
OUTPUTS = 1e-3
"""Of the largest value: more is another network, or another release of torch that computes something else."""


def against(report: PruningReport, folder: str | Path, *, update: bool = False) -> list[str]:
    """What got worse since the baseline was written, in words.

    Args:
        report: the figures now.
        folder: where the baseline lies.
        update: write it in place of comparing.

    Raises:
        InputError: there is none yet.
    """
    path = Path(folder) / FILE
    now: dict[str, Any] = {
        "parameters": report.parameters,
        "imgsz": report.imgsz,
        "runtime": report.runtime,
        "outputs": report.outputs,
        "time_share": report.time_share,
    }
    if report.data is not None:
        now["accuracy"] = report.accuracy
    if update:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps({"versions": versions(), **now}, indent=1) + "\n")
        return []
    if not path.exists():
        raise InputError(f"{path} is not there: write it with --update-baseline, look at it, and commit it")
    return worse(json.loads(path.read_text(encoding="utf-8")), now)


def worse(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What fell behind, in words.

    Args:
        then: the figures that were stored.
        now: those of today.
    """
    found = []
    if now["parameters"] > then["parameters"]:
        found.append(f"{now['parameters']:,} parameters, {then['parameters']:,} before")
    if "accuracy" in then and "accuracy" in now and now["accuracy"] < then["accuracy"] - ACCURACY:
        found.append(f"accuracy {now['accuracy']:.4f}, {then['accuracy']:.4f} before")
    if now["runtime"] == then["runtime"] and now["time_share"] > TIME * then["time_share"]:
        found.append(f"{now['time_share']:.2f} of the unpruned network's time, {then['time_share']:.2f} before")
    if now["imgsz"] == then["imgsz"] and len(now["outputs"]) == len(then["outputs"]):
        far = max(abs(a - b) for a, b in zip(now["outputs"], then["outputs"], strict=True)) / abs(then["outputs"][-1])
        if not far <= OUTPUTS:
            found.append(f"outputs for the same image differ by {far:.1e} of the largest value")
    return found
