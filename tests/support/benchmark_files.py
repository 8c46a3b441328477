"""What pytest-benchmark writes, made up: runs with chosen times and ratios on chosen machines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

START = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
KNEE = "benchmarks/test_clustering.py::TestKnee::test_of_the_scores[64 channels, 3 classes]"
LATENCY = "benchmarks/test_latency.py::TestLatency::test_of_the_pruned_network[compact-keep 0.5-eager-yolov8n]"
MASK = "benchmarks/test_surgery.py::test_masking_half_of_the_channels[yolov8n]"


def bench(
    fullname: str, seconds: float, ratios: Mapping[str, float], *, group: str = "a group", **figures: Any
) -> dict[str, Any]:
    """One benchmark; the seconds of what it is held against follow from its own and the ratios."""
    extra: dict[str, Any] = {"device": "cpu, 1 threads"}
    for name, ratio in ratios.items():
        extra[f"{name}_seconds"] = seconds / ratio
        extra[f"ratio_to_{name}"] = ratio
    return {
        "group": group,
        "name": fullname.rsplit("::", 1)[-1],
        "fullname": fullname,
        "params": None,
        "param": None,
        "extra_info": extra | figures,
        "options": {"timer": "perf_counter"},
        "stats": {
            **dict.fromkeys(("min", "max", "mean", "median"), seconds),
            **{"stddev": 0.0, "iqr": 0.0, "ops": 1 / seconds, "outliers": "0;0", "rounds": 3, "iterations": 1},
            "data": [seconds] * 3,
        },
    }


def run(
    *benchmarks: Mapping[str, Any],
    number: int = 0,
    cpu: str = "Made-up CPU",
    device: str = "cpu, 1 threads",
    torch: str = "2.15.0",
    dirty: bool = False,
) -> dict[str, Any]:
    """One file, measured on commit ``number`` of a history."""
    when = START + timedelta(days=number)
    return {
        "machine_info": {
            "node": "a-secret-name",
            "system": "Linux",
            "release": "6.1-of-a-machine",
            "python_version": "3.12.3",
            "cpu": {"brand_raw": cpu, "count": 2, "arch": "X86_64", "flags": ["sse"]},
            "device": device,
            "threads": 1,
            "versions": {"seqprune": "0.1.0", "torch": torch},
        },
        "commit_info": {
            "id": f"{number:07x}".ljust(40, "e"),
            "time": when.isoformat(),
            "author_time": when.isoformat(),
            "dirty": dirty,
            "project": "a-folder",
            "branch": "main",
        },
        "benchmarks": [dict(each) for each in benchmarks],
        "datetime": (when + timedelta(hours=1)).isoformat(),
        "version": "5.3.1",
    }


def write(folder: Path, *runs: Mapping[str, Any]) -> Path:
    """Puts files into a folder, named so that the order of names is not that of commits."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(runs):
        (folder / f"{len(runs) - number:03}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def eventful() -> list[dict[str, Any]]:
    """Twelve commits, every third on another CPU: one benchmark regresses at the last, one improved, one is steady."""
    runs = []
    for number in range(12):
        slow = 1.6 if number == 11 else 1.0
        quick = 0.6 if number >= 7 else 1.0
        other = number % 3 == 1
        pace = (1.7 if other else 1.0) * (1 + 0.02 * (number % 2))
        runs.append(
            run(
                bench(KNEE, 3e-4 * slow * pace, {"floor": 7.5 * slow, "predecessor": 0.02 * slow}, group="knee", k=30),
                bench(LATENCY, 2e-2 * quick * pace, {"unpruned": 0.9 * quick}, group="latency", kept_parameters=0.31),
                bench(
                    MASK, 2.8e-2 * pace, {"floor": 1.55 + 0.03 * (number % 2)}, group="surgery", relative_difference=0.0
                ),
                number=number,
                cpu="Another CPU" if other else "Made-up CPU",
            )
        )
    return runs
