"""Runs of the benchmarks as they were written to disk: reading them, ordering them, keeping them small.

A run is one pytest-benchmark JSON file. ``python -m benchmarks.history add FILE HISTORY_DIR`` copies one into a history
without its raw rounds and without what names the machine it came from.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NoReturn

RATIO = "ratio_to_"
SPREAD = "spread_of_"
ONCE = "once_"
QUALITY = "quality_"
_STATS = "min max mean median stddev iqr ops outliers rounds iterations".split()
_MACHINE = "system machine python_implementation python_version device threads versions".split()
_CPU = "brand_raw count arch hz_advertised_friendly".split()
_COMMIT = "id time branch dirty".split()
_BENCHMARK = "group name fullname param extra_info".split()


class HistoryError(ValueError):
    """A file or folder that is no run or no history; the message is one line."""


@dataclass(frozen=True)
class Machine:
    """What times depend on. Two runs' absolute times are comparable where all of it is equal."""

    device: str
    threads: int | None
    cpu: str

    @property
    def setting(self) -> str:
        """Where networks ran, without the make of the CPU: ratios are comparable where this is equal."""
        if self.threads is None or "thread" in self.device:
            return self.device
        return f"{self.device}, {self.threads} threads"


@dataclass(frozen=True)
class Row:
    """One benchmark in one run.

    Attributes:
        seconds: the fastest round, which is what the ratios are made of too.
        ratios: by what ours was held against (``floor``, ``predecessor``, ...), our time over its time.
        beside: by the same names, their seconds.
        figures: what else was written down: channels kept, differences, images per second.
        spreads: by the same names, how far the ratios of single rounds lie around theirs, relative.
        once: ratios whose other side was run a single time.
    """

    fullname: str
    group: str
    seconds: float
    rounds: int
    ratios: Mapping[str, float]
    beside: Mapping[str, float]
    figures: Mapping[str, str | float | bool]
    spreads: Mapping[str, float] = field(default_factory=dict)
    once: frozenset[str] = frozenset()

    def deciding(self) -> dict[str, float]:
        """The ratios that say whether something changed: those timed in turns, others only where there is none."""
        turned = {name: ratio for name, ratio in self.ratios.items() if name not in self.once}
        return turned or dict(self.ratios)

    @property
    def quality(self) -> dict[str, float]:
        """Figures of which more is better, and less a regression."""
        return {
            name.removeprefix(QUALITY): float(value)
            for name, value in self.figures.items()
            if name.startswith(QUALITY) and isinstance(value, int | float)
        }


@dataclass(frozen=True)
class Run:
    """One file: a commit, a machine, and what was measured there."""

    commit: str
    branch: str
    dirty: bool
    committed: datetime
    measured: datetime
    machine: Machine
    versions: Mapping[str, str]
    rows: Mapping[str, Row]

    @property
    def short(self) -> str:
        """The commit as people write it."""
        return self.commit[:7]

    @property
    def name(self) -> str:
        """The commit, and that it had changes on top where it had."""
        return f"{self.short}, with uncommitted changes" if self.dirty else self.short


def load(folder: Path) -> tuple[Run, ...]:
    """Every run of a history, oldest commit first.

    Raises:
        HistoryError: the folder is missing or holds no run, or a file in it is none.
    """
    if not folder.is_dir():
        raise HistoryError(f"{folder}: no such folder")
    paths = sorted(folder.glob("*.json"))
    if not paths:
        raise HistoryError(f"{folder}: holds no benchmark JSON; `python -m benchmarks.history add` puts a run there")
    return ordered(read(path) for path in paths)


def ordered(runs: Iterable[Run]) -> tuple[Run, ...]:
    """By time of the commit, then by time of the measurement; the order they come in does not matter."""
    return tuple(sorted(runs, key=lambda r: (r.committed, r.measured, r.commit, r.machine.setting, r.machine.cpu)))


def read(path: Path) -> Run:
    """One run.

    Raises:
        HistoryError: the file cannot be read, or is not what pytest-benchmark writes.
    """
    return parse(_json(path), str(path))


def parse(content: Any, where: str) -> Run:
    """A run from the content of its file; ``where`` is what errors call it."""

    def wrong(what: str) -> NoReturn:
        raise HistoryError(f"{where}: not a pytest-benchmark file: {what}")

    if not isinstance(content, dict) or not isinstance(content.get("benchmarks"), list):
        wrong("it has no list of benchmarks")
    machine, commit = _mapping(content.get("machine_info")), _mapping(content.get("commit_info"))
    measured = _time(content.get("datetime"))
    if measured is None:
        wrong("`datetime` is missing or no date")
    rows: dict[str, Row] = {}
    for number, each in enumerate(content["benchmarks"]):
        try:
            row = _row(each)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            wrong(
                f"benchmark {number} lacks {error}" if isinstance(error, KeyError) else f"benchmark {number}: {error}"
            )
        rows[row.fullname] = row
    if not rows:
        wrong("no benchmark ran")
    threads = machine.get("threads")
    return Run(
        commit=str(commit.get("id") or "unversioned"),
        branch=str(commit.get("branch") or ""),
        dirty=bool(commit.get("dirty")),
        committed=_time(commit.get("time")) or measured,
        measured=measured,
        machine=Machine(
            device=re.sub(r"\b1 threads", "1 thread", str(machine.get("device") or "unknown device")),
            threads=threads if isinstance(threads, int) else None,
            cpu=_cpu(_mapping(machine.get("cpu"))),
        ),
        versions=_versions(machine),
        rows=rows,
    )


def slim(content: Mapping[str, Any]) -> dict[str, Any]:
    """What a history needs of a file: no raw rounds, no processor flags, nothing that names the machine.

    What `pytest-benchmark compare` reads stays.
    """
    machine = _mapping(content.get("machine_info"))
    return {
        "machine_info": _only(machine, _MACHINE) | {"cpu": _only(_mapping(machine.get("cpu")), _CPU)},
        "commit_info": _only(_mapping(content.get("commit_info")), _COMMIT),
        "benchmarks": [
            _only(each, _BENCHMARK) | {"stats": _only(each["stats"], _STATS)} for each in content["benchmarks"]
        ],
        "datetime": content["datetime"],
        "version": content.get("version", ""),
    }


def add(path: Path, folder: Path) -> Path:
    """Puts a run into a history as ``<date>-<commit>.json``, numbered where that commit was measured that day before.

    Adding the same run twice leaves one file.
    """
    content = _json(path)
    run = parse(content, str(path))
    text = json.dumps(slim(content), indent=1) + "\n"
    commit = re.sub(r"\W", "", run.short)
    stem = f"{run.measured:%Y-%m-%d}-{commit}"
    folder.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        target = folder / (f"{stem}.json" if number == 1 else f"{stem}-{number}.json")
        if not target.exists():
            target.write_text(text, encoding="utf-8")
            return target
        if target.read_text(encoding="utf-8") == text:
            return target
        number += 1


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise HistoryError(f"{path}: {error.strerror}") from error
    except ValueError as error:  # of the encoding or of the JSON
        raise HistoryError(f"{path}: not JSON: {error}") from error


def _row(each: Any) -> Row:
    extra = _mapping(each.get("extra_info")) if isinstance(each, dict) else _mapping(each)
    ratios = {key.removeprefix(RATIO): _positive(key, extra[key]) for key in sorted(extra) if key.startswith(RATIO)}
    return Row(
        fullname=str(each["fullname"]),
        group=str(each.get("group") or ""),
        seconds=_positive("min", each["stats"]["min"]),
        rounds=int(each["stats"].get("rounds", 1)),
        ratios=ratios,
        beside={n: _positive(n, extra[f"{n}_seconds"]) for n in ratios if f"{n}_seconds" in extra},
        figures={
            key: value
            for key, value in extra.items()
            if not key.startswith(RATIO)
            and not key.startswith((SPREAD, ONCE))
            and key != "device"
            and not key.endswith("_seconds")
            and isinstance(value, (str, int, float, bool))
        },
        spreads={n: _spread(extra[SPREAD + n]) for n in ratios if SPREAD + n in extra},
        once=frozenset(n for n in ratios if extra.get(ONCE + n)),
    )


def _spread(value: Any) -> float:
    number = float(value)
    if not 0 <= number < math.inf:
        raise ValueError(f"a spread is {value}")
    return number


def _positive(name: str, value: Any) -> float:
    number = float(value)
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{name} is {value}")
    return number


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _only(values: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: values[name] for name in names if name in values}


def _cpu(values: Mapping[str, Any]) -> str:
    name = str(values.get("brand_raw") or values.get("arch") or "unknown CPU")
    return f"{name}, {values['count']} cores" if values.get("count") else name


def _versions(machine: Mapping[str, Any]) -> dict[str, str]:
    found = {"python": machine["python_version"]} if "python_version" in machine else {}
    return {name: str(value) for name, value in (found | _mapping(machine.get("versions"))).items()}


def _time(value: Any) -> datetime | None:
    try:
        # Python 3.10 reads no Z.
        found = datetime.fromisoformat(str(value).replace("Z", "+00:00"))
        return (found if found.tzinfo else found.replace(tzinfo=timezone.utc)).astimezone(timezone.utc)
    except (ValueError, OverflowError):
        return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit codes: 0, or 2 where the file is no run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.history", description="Keep runs of the benchmarks.")
    command = parser.add_subparsers(required=True).add_parser("add", help="put a run into a history, made small")
    command.add_argument("file", type=Path, help="what --benchmark-json wrote")
    command.add_argument("history", type=Path, help="folder of the history")
    options = parser.parse_args(arguments)
    try:
        sys.stdout.write(f"{add(options.file, options.history)}\n")
    except (HistoryError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
