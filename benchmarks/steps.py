"""A history as levels with steps between them: what became slower, when, and than what.

The levels are a Potts fit, as in asv's ``step_detect``: of all ways to cut a history into stretches of one level each,
the one whose squared deviations and price of a step add up to the least (F. Friedrich et al., "Complexity penalized
M-estimation", 2008), found exactly by dynamic programming. Logarithms are fitted, so that 10 % is as far anywhere; the
price goes by the noise, which the differences of neighbours tell. Thirty lines of it stand here, since whoever
publishes the page installs nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import exp, inf, log, sqrt
from pathlib import Path
from statistics import median

from benchmarks.compare import THRESHOLD, agreed, threshold
from benchmarks.history import HistoryError, Row, load

LEAST_NOISE = 0.03
"""Of a ratio, relative: what unchanged code was seen to differ by where neighbours happen to agree."""
PRICE = 3.0
"""Of a step, in squares of the noise and logarithms of the number of runs."""
FALL = 0.02
"""Of a quality figure, relative to the best level seen: more is a regression."""


@dataclass(frozen=True)
class Level:
    """A stretch of a history, from ``start`` up to ``stop``, and the value that it stays around."""

    start: int
    stop: int
    value: float


@dataclass(frozen=True)
class Standing:
    """A run of a benchmark beside the best level that its history had before.

    Attributes:
        factor: what all ratios agree that the time is multiplied by, against that level.
        since: against the level before this one; 1 within a level.
    """

    factor: float
    since: float


def noise(values: Sequence[float], spreads: Sequence[float] = ()) -> float:
    """Of logarithms: by the differences of neighbours, which steps hardly change, and by what the runs say themselves.

    Args:
        values: positive, oldest first.
        spreads: of single values, relative, where they are known.
    """
    apart = [log(b / a) for a, b in pairwise(values)]
    middle = median(apart) if apart else 0.0
    seen = 1.4826 * median([abs(each - middle) for each in apart]) / sqrt(2) if len(apart) > 2 else 0.0
    return max(LEAST_NOISE, seen, median(spreads) if spreads else 0.0)


def levels(values: Sequence[float], sigma: float | None = None) -> list[Level]:
    """The stretches of a history, oldest first.

    Args:
        values: positive.
        sigma: the noise of their logarithms; found from them where it is left out.
    """
    count = len(values)
    logs = [log(value) for value in values]
    sums, squares = [0.0], [0.0]
    for each in logs:
        sums.append(sums[-1] + each)
        squares.append(squares[-1] + each * each)
    price = PRICE * (sigma or noise(values)) ** 2 * (1 + log(max(count, 2)))
    best, cut = [0.0] + [inf] * count, [0] * (count + 1)
    for stop in range(1, count + 1):
        for start in range(stop):
            total = sums[stop] - sums[start]
            apart = squares[stop] - squares[start] - total * total / (stop - start)
            cost = best[start] + max(apart, 0.0) + (price if start else 0.0)
            if cost < best[stop]:
                best[stop], cut[stop] = cost, start
    found: list[Level] = []
    stop = count
    while stop:
        start = cut[stop]
        found.insert(0, Level(start, stop, exp((sums[stop] - sums[start]) / (stop - start))))
        stop = start
    return found


def standings(rows: Sequence[Row]) -> list[Standing]:
    """Every run of one benchmark, oldest first, beside the best level before it, by the ratios that decide."""
    each = [_standings([row.deciding() for row in rows], name, rows) for name in dict.fromkeys(_names(rows))]
    found = []
    for at in range(len(rows)):
        here = [standing[at] for standing in each if at in standing]
        found.append(Standing(agreed(s.factor for s in here), agreed(s.since for s in here)))
    return found


def _names(rows: Sequence[Row]) -> list[str]:
    return [name for row in rows for name in row.deciding()]


def _standings(ratios: Sequence[dict[str, float]], name: str, rows: Sequence[Row]) -> dict[int, Standing]:
    """By position, for one ratio."""
    places = [at for at, known in enumerate(ratios) if name in known]
    values = [ratios[at][name] for at in places]
    spreads = [rows[at].spreads[name] for at in places if name in rows[at].spreads]
    found: dict[int, Standing] = {}
    before: list[Level] = []
    for level in levels(values, noise(values, spreads)):
        best = _best(before)
        for at in range(level.start, level.stop):
            since = level.value / before[-1].value if before and at == level.start else 1.0
            found[places[at]] = Standing(level.value / best if best else 1.0, since)
        before.append(level)
    return found


def _best(before: Sequence[Level]) -> float:
    """The least of some levels, 0 where there is none; one lucky run is none where longer ones are there."""
    long = [level.value for level in before if level.stop - level.start > 1]
    return min(long or [level.value for level in before], default=0.0)


def fallen(rows: Sequence[Row]) -> dict[str, float]:
    """By quality figure of the latest run, what is left of the best that was seen, where that is too little."""
    found = {}
    for name, value in rows[-1].quality.items() if rows else ():
        best = max(row.quality[name] for row in rows if name in row.quality)
        if best > 0 and value < best * (1 - FALL):
            found[name] = value / best
    return found


def slower(history: Path, limit: float = THRESHOLD) -> list[str]:
    """A line for every benchmark of the latest run of its setting that is slower, or worse, than it ever was."""
    by_series: dict[tuple[str, str], list[tuple[str, Row]]] = {}
    latest: dict[str, str] = {}
    for run in load(history):
        latest[run.machine.setting] = run.commit
        for name, row in run.rows.items():
            by_series.setdefault((run.machine.setting, name), []).append((run.commit, row))
    lines = []
    for (setting, name), runs in sorted(by_series.items()):
        if runs[-1][0] != latest[setting]:
            continue
        rows = [row for _, row in runs]
        now = standings(rows)
        if now[-1].factor > limit:
            first = len(now) - 1
            while first and now[first - 1].factor > limit:
                first -= 1
            lines.append(f"{name} ({setting}): {now[-1].factor:.2f} x its best level, since {runs[first][0][:7]}")
        lines += [f"{name} ({setting}): {what} fell to {left:.1%} of its best" for what, left in fallen(rows).items()]
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit codes: 0, 1 where something is slower than its best level, 2 where the input is no history."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.steps", description="What a history says became slower, against its best level."
    )
    parser.add_argument("history", type=Path)
    parser.add_argument("--threshold", type=threshold, default=THRESHOLD, help="of a regression (%(default)s)")
    options = parser.parse_args(arguments)
    try:
        lines = slower(options.history, options.threshold)
    except HistoryError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write("\n".join(lines or ["nothing is slower than its best level"]) + "\n")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
