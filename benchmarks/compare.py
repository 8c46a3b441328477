"""What became slower between two runs, decided by the ratios measured within each.

``python -m benchmarks.compare BASE.json HEAD.json`` ends with 1 where something regressed.

A ratio holds our time against another's in the same run, so it hardly depends on how fast or busy the machine was. A
benchmark with several ratios changed by what all of them agree on: where ours becomes slower, all of them rise; where
one rises alone, it is the other side that was timed differently. Measured on an unchanged commit, three runs in a row:
ratios timed in turns stayed within 7 %, those to a predecessor that is too slow to be run more than once differed by up
to a factor of 2: these decide only where there is no other. Slow drift is seen by :mod:`benchmarks.steps`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from math import hypot, log
from pathlib import Path

from benchmarks.history import HistoryError, Row, Run, read

THRESHOLD = 1.25
CLEAR = 3.0
"""A change is one where it is so many times the spread that both runs say they have."""


class Verdict(Enum):
    """What a change of ratios means at a threshold."""

    REGRESSION = "regression"
    IMPROVEMENT = "improvement"
    UNEVEN = "uneven"
    """Some ratios moved beyond the threshold, but not all of them."""
    SAME = "same"


@dataclass(frozen=True)
class Change:
    """One benchmark in two runs.

    Attributes:
        ratios: by name, the ratio before and after, where both runs have it.
        factor: what all ratios agree the time was multiplied by; 1 where they do not agree on a direction.
    """

    fullname: str
    ratios: Mapping[str, tuple[float, float]]
    factor: float
    verdict: Verdict

    def factors(self) -> dict[str, float]:
        """By name, after over before."""
        return {name: after / before for name, (before, after) in self.ratios.items()}


@dataclass(frozen=True)
class Comparison:
    """Two runs: benchmarks with ratios in both, and those that only one of them has."""

    changes: tuple[Change, ...]
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]
    threshold: float

    def having(self, verdict: Verdict) -> tuple[Change, ...]:
        return tuple(change for change in self.changes if change.verdict is verdict)


def agreed(factors: Iterable[float]) -> float:
    """What all factors agree on: the one nearest to 1 where all lie on one side of it, else 1."""
    factors = tuple(factors)
    if not factors:
        return 1.0
    return max(min(factors), 1.0) * min(max(factors), 1.0)


def change(before: Row, after: Row, threshold: float = THRESHOLD) -> Change | None:
    """How a benchmark changed; None where the two rows have no ratio in common. Absolute times are not looked at."""
    ratios = {name: (before.ratios[name], after.ratios[name]) for name in after.ratios if name in before.ratios}
    if not ratios:
        return None
    # What was timed once decides nothing where something was timed in turns: it vetoed slowdowns of 1.5 x.
    deciding = [name for name in ratios if name not in before.once | after.once] or list(ratios)
    factors = [ratios[name][1] / ratios[name][0] for name in deciding]
    factor = agreed(factors)
    noise = max((hypot(before.spreads.get(n, 0.0), after.spreads.get(n, 0.0)) for n in deciding), default=0.0)
    clear = abs(log(factor)) > CLEAR * noise
    if factor > threshold and clear:
        verdict = Verdict.REGRESSION
    elif factor < 1 / threshold and clear:
        verdict = Verdict.IMPROVEMENT
    else:
        beyond = any(each > threshold or each < 1 / threshold for each in factors)
        verdict = Verdict.UNEVEN if beyond else Verdict.SAME
    return Change(after.fullname, ratios, factor, verdict)


def compare(before: Run, after: Run, threshold: float = THRESHOLD) -> Comparison:
    """Every benchmark that has ratios in both runs, and the names of those that one run lacks."""
    both = [name for name in after.rows if name in before.rows]
    found = (change(before.rows[name], after.rows[name], threshold) for name in both)
    return Comparison(
        changes=tuple(each for each in found if each is not None),
        only_before=tuple(name for name in before.rows if name not in after.rows),
        only_after=tuple(name for name in after.rows if name not in before.rows),
        threshold=threshold,
    )


def table(comparison: Comparison) -> str:
    """The comparison as text, worst first."""
    lines = []
    titles = {
        Verdict.REGRESSION: "Regressions",
        Verdict.IMPROVEMENT: "Improvements",
        Verdict.UNEVEN: "Uneven: one ratio moved without the others, so the other side did",
    }
    for verdict, title in titles.items():
        found = sorted(comparison.having(verdict), key=lambda each: (-each.factor, each.fullname))
        if not found:
            continue
        lines += [f"{title} ({len(found)})"]
        for each in found:
            lines += [f"  {each.fullname}"]
            lines += [
                f"    {name:12} {before:10.4g} -> {after:10.4g}  {after / before:6.2f} x"
                for name, (before, after) in each.ratios.items()
            ]
    for title, names in (("Only in the base", comparison.only_before), ("Only in the head", comparison.only_after)):
        if names:
            lines += [f"{title} ({len(names)})", *(f"  {name}" for name in names)]
    worst = max((each.factor for each in comparison.changes), default=1.0)
    lines += [
        f"{len(comparison.changes)} benchmarks compared by their ratios, threshold {comparison.threshold:g} x: "
        f"{len(comparison.having(Verdict.REGRESSION))} regressed, "
        f"{len(comparison.having(Verdict.IMPROVEMENT))} improved, worst {worst:.2f} x."
    ]
    return "\n".join(lines) + "\n"


def threshold(text: str) -> float:
    """A threshold from the command line; 1 or less would call every run a regression."""
    value = float(text)
    if not value > 1:
        raise argparse.ArgumentTypeError(f"{text}: must be above 1")
    return value


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit codes: 0, 1 where something regressed, 2 where the input is no run."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare", description="Compare two runs by the ratios measured within each."
    )
    parser.add_argument("base", type=Path)
    parser.add_argument("head", type=Path)
    parser.add_argument("--threshold", type=threshold, default=THRESHOLD, help="of a regression (%(default)s)")
    options = parser.parse_args(arguments)
    try:
        base, head = read(options.base), read(options.head)
    except HistoryError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    found = compare(base, head, options.threshold)
    sys.stdout.write(table(found))
    if base.machine.setting != head.machine.setting:
        sys.stdout.write(f"Note: {base.machine.setting} against {head.machine.setting}.\n")
    return 1 if found.having(Verdict.REGRESSION) else 0


if __name__ == "__main__":
    sys.exit(main())
