"""Each benchmark over the commits of a history: what the dashboard shows, worked out before anything is drawn."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import log

from benchmarks.compare import THRESHOLD, Change, Verdict, change
from benchmarks.history import Machine, Row, Run
from benchmarks.steps import Standing, standings


@dataclass(frozen=True)
class Point:
    """A benchmark in one run.

    Attributes:
        place: the run's position among the runs of its setting, the same in every chart.
        change: against the point before, by ratios; None for the first one and where there are none.
        standing: against the levels of the history before.
        threshold: of a regression.
    """

    place: int
    run: Run
    row: Row
    change: Change | None
    standing: Standing
    threshold: float

    @property
    def slow(self) -> bool:
        """Whether it is slower than the best level seen."""
        return self.standing.factor > self.threshold

    @property
    def verdict(self) -> Verdict:
        """A regression or an improvement is a step between levels, where it came; slow ones stay :attr:`slow`."""
        if self.slow and self.standing.since > 1:
            return Verdict.REGRESSION
        if self.standing.since < 1 / self.threshold:
            return Verdict.IMPROVEMENT
        uneven = self.change is not None and self.change.verdict is Verdict.UNEVEN
        return Verdict.UNEVEN if uneven else Verdict.SAME


@dataclass(frozen=True)
class Series:
    """A benchmark on one kind of device, oldest point first.

    Ratios of all its points are comparable, times only of those on the same machine.
    """

    fullname: str
    setting: str
    runs: int
    points: tuple[Point, ...]
    current: bool
    """Whether the latest run of the setting has it."""

    @property
    def latest(self) -> Point:
        return self.points[-1]

    @property
    def anchor(self) -> str:
        """Stays the same from one page to the next, so that links to it do."""
        return "b" + hashlib.sha256(f"{self.fullname}\n{self.setting}".encode("utf-8", "replace")).hexdigest()[:10]

    @property
    def ratios(self) -> tuple[str, ...]:
        """What the latest point is held against, the least possible first."""
        known = ("floor", "unpruned", "predecessor")
        return tuple(sorted(self.latest.row.ratios, key=lambda n: (known.index(n) if n in known else len(known), n)))

    def machines(self) -> tuple[Machine, ...]:
        """Every machine it ran on, that of the latest point first, then by how recently."""
        return tuple(dict.fromkeys(point.run.machine for point in reversed(self.points)))

    def time_before(self) -> Point | None:
        """The point before the latest, where its time can be compared: None where another machine measured it."""
        if len(self.points) < 2 or self.points[-2].run.machine != self.latest.run.machine:
            return None
        return self.points[-2]

    def slow_since(self) -> Point | None:
        """Where the latest stretch began that is slower than the best level seen; ``None`` where none lasts."""
        if not self.current or not self.latest.slow:
            return None
        quick = [at for at, point in enumerate(self.points) if not point.slow]
        return self.points[quick[-1] + 1] if quick else self.points[0]

    def verdict(self) -> Verdict:
        """Of the latest point; what the latest run has not measured did not change there."""
        return self.latest.verdict if self.current else Verdict.SAME


@dataclass(frozen=True)
class Group:
    """Benchmarks that belong side by side."""

    name: str
    series: tuple[Series, ...]


@dataclass(frozen=True)
class Subject:
    """One file of benchmarks."""

    name: str
    groups: tuple[Group, ...]

    def series(self) -> tuple[Series, ...]:
        return tuple(series for group in self.groups for series in group.series)


@dataclass(frozen=True)
class Model:
    """A whole history, ready to be drawn."""

    runs: tuple[Run, ...]
    subjects: tuple[Subject, ...]
    threshold: float

    def series(self) -> tuple[Series, ...]:
        return tuple(series for subject in self.subjects for series in subject.series())

    def having(self, verdict: Verdict) -> tuple[Series, ...]:
        """Series whose latest point has this verdict, the largest change first."""
        found = [series for series in self.series() if series.verdict() is verdict]
        return tuple(sorted(found, key=lambda s: (-abs(_log(s.latest)), s.fullname, s.setting)))

    def slow(self) -> tuple[Series, ...]:
        """Series that are slower than the best level they ever had, the slowest first."""
        found = [series for series in self.series() if series.slow_since() is not None]
        return tuple(sorted(found, key=lambda s: (-s.latest.standing.factor, s.fullname, s.setting)))

    def latest(self) -> dict[str, Run]:
        """By setting, its latest run; the most recently measured setting first."""
        found = {run.machine.setting: run for run in self.runs}
        return dict(sorted(found.items(), key=lambda each: (each[1].measured, each[0]), reverse=True))


def model(runs: Sequence[Run], threshold: float = THRESHOLD) -> Model:
    """Joins ordered runs into series, and decides for every point whether it regressed."""
    by_setting: dict[str, list[Run]] = {}
    for run in runs:
        by_setting.setdefault(run.machine.setting, []).append(run)
    series = [
        _series(name, setting, of_setting, threshold)
        for setting, of_setting in by_setting.items()
        for name in dict.fromkeys(name for run in reversed(of_setting) for name in run.rows)
    ]
    grouped: dict[str, dict[str, list[Series]]] = {}
    for each in series:
        grouped.setdefault(subject_of(each.fullname), {}).setdefault(each.latest.row.group, []).append(each)
    subjects = (
        Subject(name, tuple(Group(group, tuple(members)) for group, members in groups.items()))
        for name, groups in sorted(grouped.items())
    )
    return Model(tuple(runs), tuple(subjects), threshold)


def subject_of(fullname: str) -> str:
    """``benchmarks/test_clustering.py::...`` is about clustering."""
    stem = fullname.split("::")[0].rsplit("/", 1)[-1].removesuffix(".py").removeprefix("test_")
    return _sentence(stem.replace("_", " ")) or "Other"


def title_of(fullname: str) -> tuple[str, str]:
    """A benchmark's name as a sentence, and its parameters.

    >>> title_of("benchmarks/test_clustering.py::TestKnee::test_of_the_scores[64 channels]")
    ('Knee of the scores', '64 channels')
    """
    path, _, parameters = fullname.partition("[")
    parts = path.split("::")[1:] or [path]
    words = [re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", part.removeprefix("Test")).lower() for part in parts[:-1]]
    last = parts[-1].removeprefix("test_").replace("_", " ").replace("predecessors ", "predecessor’s ")
    joint = ": " if words and last.startswith(("the ", "a ")) else " "
    return _sentence(" ".join(words) + joint + last if words else last), parameters.removesuffix("]")


def _series(name: str, setting: str, runs: Iterable[Run], threshold: float) -> Series:
    points: list[Point] = []
    place = -1
    runs = tuple(runs)
    stands = iter(standings([run.rows[name] for run in runs if name in run.rows]))
    for place, run in enumerate(runs):
        if name in run.rows:
            row = run.rows[name]
            changed = change(points[-1].row, row, threshold) if points else None
            points.append(Point(place, run, row, changed, next(stands), threshold))
    return Series(name, setting, place + 1, tuple(points), points[-1].place == place)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _log(point: Point) -> float:
    return log(point.standing.since)
