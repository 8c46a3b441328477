"""What a history says: steps are found, drift is found, noise is not."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Sequence
from itertools import combinations, pairwise
from math import exp, log
from pathlib import Path
from typing import Any

import benchmark_files as made
import pytest

from benchmarks.compare import Verdict, change
from benchmarks.history import Row
from benchmarks.steps import LEAST_NOISE, PRICE, fallen, levels, main, noise, slower, standings

ROOT = Path(__file__).parents[2]


def noisy(values: Sequence[float], seed: int, sigma: float = 0.05) -> list[float]:
    draw = random.Random(seed)  # noqa: S311 - noise
    return [value * exp(draw.gauss(0, sigma)) for value in values]


def row(floor: float, **about: Any) -> Row:
    return Row(made.KNEE, "", 1.0, 5, {"floor": floor}, {}, {}, **about)


def kept(folder: Path, values: Sequence[float]) -> Path:
    runs = [made.run(made.bench(made.KNEE, 1.0, {"floor": v}), number=n) for n, v in enumerate(values)]
    return made.write(folder, *runs)


@pytest.mark.parametrize("seed", range(8))
def test_one_and_a_half_times_as_slow_is_seen_at_once(seed: int) -> None:
    """A planted slowdown of 1.5 × passed as uneven: the predecessor, which is run once, had moved the other way."""
    values = noisy([2.0] * 20 + [3.0], seed)
    assert standings([row(v) for v in values])[-1].factor > 1.25
    before, after = (
        Row("", "", 1.0, 5, {"floor": floor, "predecessor": old}, {}, {}, {"floor": 0.04}, frozenset({"predecessor"}))
        for floor, old in ((values[-2], 0.1), (values[-1], 0.09))
    )
    found = change(before, after)
    assert found is not None
    assert found.verdict is Verdict.REGRESSION


@pytest.mark.parametrize("seed", range(8))
def test_ten_commits_each_ten_per_cent_slower_are_seen(seed: int) -> None:
    """Compared with the one before, each of them was the same: 2.6 × in all."""
    values = noisy([2.0] * 10 + [2.0 * 1.1**n for n in range(1, 11)], seed, 0.02)
    rows = [row(v) for v in values]
    pairs = [change(a, b) for a, b in pairwise(rows)]
    assert all(each is not None and each.verdict is Verdict.SAME for each in pairs)
    found = standings(rows)
    assert found[-1].factor > 1.8
    assert max(standing.factor for standing in found[:10]) < 1.25


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("sigma", [0.02, 0.07])
def test_an_unchanged_noisy_history_is_not_called_slower(seed: int, sigma: float) -> None:
    values = noisy([2.0] * 40, seed, sigma)
    assert max(standing.factor for standing in standings([row(v) for v in values])) < 1.25


def test_a_busy_run_in_the_middle_is_no_level_to_be_held_to() -> None:
    found = standings([row(v) for v in (2.0, 2.0, 2.0, 1.2, 2.0, 2.0, 2.0)])
    assert found[-1].factor == pytest.approx(1, abs=0.01)


def test_the_best_level_counts_and_not_the_last_one() -> None:
    found = standings([row(v) for v in (2.0, 2.0, 1.0, 1.0, 1.2, 1.2, 1.4, 1.4)])
    assert found[-1].factor == pytest.approx(1.4)
    assert found[2].since == pytest.approx(0.5)


@pytest.mark.parametrize("seed", range(12))
def test_levels_are_the_cheapest_of_all_cuts(seed: int) -> None:
    values = noisy([1, 1, 1, 1.3, 1.3, 1, 2, 2, 2], seed, 0.08)
    sigma = noise(values)

    def cost(cuts: tuple[int, ...]) -> float:
        total = PRICE * sigma**2 * (1 + log(len(values))) * len(cuts)
        edges = (0, *cuts, len(values))
        for start, stop in pairwise(edges):
            part = [log(v) for v in values[start:stop]]
            total += sum((each - sum(part) / len(part)) ** 2 for each in part)
        return total

    ways = [cuts for count in range(len(values)) for cuts in combinations(range(1, len(values)), count)]
    assert tuple(level.start for level in levels(values)[1:]) == min(ways, key=cost)


def test_the_noise_is_not_made_greater_by_a_step() -> None:
    assert noise([1.0] * 5 + [3.0] * 5) == LEAST_NOISE
    assert noise([1.0, 1.0], [0.2]) == 0.2
    assert noise(noisy([1.0] * 400, 0, 0.1)) == pytest.approx(0.1, rel=0.15)


def test_what_is_timed_once_decides_only_alone() -> None:
    both = Row("", "", 1.0, 3, {"floor": 1.0, "predecessor": 1.0}, {}, {}, once=frozenset({"predecessor"}))
    alone = Row("", "", 1.0, 3, {"predecessor": 1.0}, {}, {}, once=frozenset({"predecessor"}))
    assert (both.deciding(), alone.deciding()) == ({"floor": 1.0}, {"predecessor": 1.0})


def test_a_spread_that_explains_a_change_is_no_regression() -> None:
    """Unchanged code was called a regression at 1.43 and 1.97 × on a busy machine."""
    quiet, busy = {"spreads": {"floor": 0.02}}, {"spreads": {"floor": 0.25}}
    for about, verdict in ((quiet, Verdict.REGRESSION), (busy, Verdict.UNEVEN)):
        found = change(row(2.0, **about), row(2.9, **about))
        assert found is not None
        assert found.verdict is verdict


def test_a_quality_figure_that_falls_is_a_regression(tmp_path: Path) -> None:
    runs = [
        made.run(made.bench(made.KNEE, 1.0, {"floor": 2.0}, quality_share=share), number=n)
        for n, share in enumerate((0.9, 0.95, 0.92))
    ]
    assert slower(made.write(tmp_path, *runs)) == [f"{made.KNEE} (cpu, 1 thread): share fell to 96.8% of its best"]
    assert fallen([]) == {}


def test_the_command_names_the_commit_and_ends_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(kept(tmp_path / "same", [2.0, 2.1, 2.0]))]) == 0
    assert "nothing is slower" in capsys.readouterr().out
    assert main([str(kept(tmp_path / "slow", [2.0, 2.0, 3.0, 3.0]))]) == 1
    assert "1.50 x its best level, since 0000002" in capsys.readouterr().out
    assert main([str(tmp_path / "none")]) == 2
    command = [sys.executable, "-S", "-m", "benchmarks.steps", str(tmp_path / "slow")]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode == 1  # noqa: S603


def test_a_gap_in_the_history_leaves_its_place(tmp_path: Path) -> None:
    rows = [row(2.0), Row("", "", 1.0, 3, {}, {}, {}), row(3.0)]
    assert [round(s.factor, 2) for s in standings(rows)] == [1.0, 1.0, 1.5]
