"""What counts as a regression: ratios, all of them, beyond a threshold."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import benchmark_files as made
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.compare import THRESHOLD, Verdict, agreed, change, compare, main, table
from benchmarks.history import Row, Run, parse

ROOT = Path(__file__).parents[2]
factors = st.floats(0.01, 100)


def row(ratios: Mapping[str, float], seconds: float = 1.0) -> Row:
    return Row(made.KNEE, "", seconds, 3, ratios, {}, {})


def one(seconds: float, ratios: Mapping[str, float], **about: Any) -> Run:
    return parse(made.run(made.bench(made.KNEE, seconds, ratios), **about), "")


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        ({"floor": 2.0}, {"floor": 2.0}, Verdict.SAME),
        ({"floor": 2.0}, {"floor": 2.4}, Verdict.SAME),
        ({"floor": 2.0}, {"floor": 2.6}, Verdict.REGRESSION),
        ({"floor": 2.0}, {"floor": 1.5}, Verdict.IMPROVEMENT),
        ({"floor": 2.0, "predecessor": 0.1}, {"floor": 2.6, "predecessor": 0.13}, Verdict.REGRESSION),
        ({"floor": 2.0, "predecessor": 0.1}, {"floor": 1.4, "predecessor": 0.05}, Verdict.IMPROVEMENT),
        # Ours cannot have changed by a factor that only one side sees.
        ({"floor": 2.0, "predecessor": 0.1}, {"floor": 2.0, "predecessor": 0.2}, Verdict.UNEVEN),
        ({"floor": 2.0, "predecessor": 0.1}, {"floor": 4.0, "predecessor": 0.05}, Verdict.UNEVEN),
        ({"unpruned": 0.5}, {"unpruned": 0.9}, Verdict.REGRESSION),
    ],
)
def test_the_verdict(before: Mapping[str, float], after: Mapping[str, float], verdict: Verdict) -> None:
    found = change(row(before), row(after))
    assert found is not None
    assert found.verdict is verdict


def test_the_threshold_itself_is_no_regression() -> None:
    found = change(row({"floor": 1.0}), row({"floor": THRESHOLD}))
    assert found is not None
    assert found.verdict is Verdict.SAME


def test_only_ratios_that_both_have_are_compared() -> None:
    found = change(row({"floor": 1.0, "predecessor": 1.0}), row({"floor": 2.0, "unpruned": 1.0}))
    assert found is not None
    assert found.ratios == {"floor": (1.0, 2.0)}
    assert change(row({"floor": 1.0}), row({"predecessor": 1.0})) is None


@given(st.floats(1e-9, 1e6), factors)
def test_times_alone_never_decide(seconds: float, factor: float) -> None:
    ratios = {"floor": 2.0, "predecessor": 0.01}
    found = change(row(ratios, seconds), row(ratios, seconds * factor))
    assert found is not None
    assert (found.verdict, found.factor) == (Verdict.SAME, 1.0)


@given(st.lists(factors, min_size=1, max_size=4))
def test_what_is_agreed_is_no_further_from_1_than_any_says(found: list[float]) -> None:
    factor = agreed(found)
    assert all(factor <= each for each in found) or factor <= 1
    assert all(factor >= each for each in found) or factor >= 1
    assert factor == 1 or factor in found
    assert agreed(reversed(found)) == factor


@given(st.dictionaries(st.sampled_from(["floor", "predecessor", "unpruned"]), factors, min_size=1), factors)
def test_slower_one_way_is_faster_the_other_way(ratios: dict[str, float], factor: float) -> None:
    slow = {name: ratio * factor for name, ratio in ratios.items()}
    there, back = change(row(ratios), row(slow), 1.3), change(row(slow), row(ratios), 1.3)
    assert there is not None
    assert back is not None
    assert there.factor == pytest.approx(factor)
    assert there.factor * back.factor == pytest.approx(1)
    if not any(abs(factor / edge - 1) < 1e-9 for edge in (1.3, 1 / 1.3)):
        mirror = {Verdict.REGRESSION: Verdict.IMPROVEMENT, Verdict.IMPROVEMENT: Verdict.REGRESSION}
        assert back.verdict is mirror.get(there.verdict, there.verdict)


def test_quality_is_not_compared() -> None:
    before = parse(made.run(made.bench(made.KNEE, 1.0, {"floor": 2.0}, largest_difference=1e-9)), "")
    after = parse(made.run(made.bench(made.KNEE, 1.0, {"floor": 2.0}, largest_difference=1.0)), "")
    assert compare(before, after).changes[0].ratios == {"floor": (2.0, 2.0)}


def test_the_table_names_what_changed_and_what_is_missing() -> None:
    before = parse(made.run(made.bench(made.KNEE, 1.0, {"floor": 2.0}), made.bench("gone", 1.0, {})), "")
    after = parse(made.run(made.bench(made.KNEE, 1.0, {"floor": 3.0}), made.bench("new", 1.0, {})), "")
    assert table(compare(before, after)).splitlines() == [
        "Regressions (1)",
        f"  {made.KNEE}",
        "    floor                 2 ->          3    1.50 x",
        "Only in the base (1)",
        "  gone",
        "Only in the head (1)",
        "  new",
        "1 benchmarks compared by their ratios, threshold 1.25 x: 1 regressed, 0 improved, worst 1.50 x.",
    ]


class TestTheCommand:
    def files(self, folder: Path, base: Mapping[str, Any], head: Mapping[str, Any]) -> list[str]:
        paths = [folder / "base.json", folder / "head.json"]
        for path, content in zip(paths, (base, head), strict=True):
            path.write_text(json.dumps(content), encoding="utf-8")
        return [str(path) for path in paths]

    @pytest.mark.parametrize(
        ("ratio", "arguments", "code"),
        [(2.0, [], 0), (2.6, [], 1), (2.6, ["--threshold", "1.5"], 0), (1.0, [], 0), (2.3, ["--threshold", "1.1"], 1)],
    )
    def test_ends_with_1_on_a_regression_alone(
        self, tmp_path: Path, ratio: float, arguments: list[str], code: int
    ) -> None:
        base, head = (made.run(made.bench(made.KNEE, 1.0, {"floor": each})) for each in (2.0, ratio))
        assert main([*self.files(tmp_path, base, head), *arguments]) == code

    def test_a_machine_twice_as_slow_is_no_regression(self, tmp_path: Path) -> None:
        base = made.run(made.bench(made.KNEE, 1.0, {"floor": 2.0}))
        head = made.run(made.bench(made.KNEE, 2.0, {"floor": 2.0}), cpu="A slow CPU")
        assert main(self.files(tmp_path, base, head)) == 0

    def test_what_only_one_has_is_listed_and_no_failure(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        base, head = (made.run(made.bench(name, 1.0, {"floor": 2.0})) for name in ("gone", "new"))
        assert main(self.files(tmp_path, base, head)) == 0
        assert "Only in the base (1)\n  gone\nOnly in the head (1)\n  new\n" in capsys.readouterr().out

    def test_another_device_is_said(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        base, head = (made.run(made.bench(made.KNEE, 1.0, {}), device=each) for each in ("cpu, 1 threads", "A GPU"))
        main(self.files(tmp_path, base, head))
        assert "cpu, 1 thread against A GPU" in capsys.readouterr().out

    def test_bad_input_ends_with_2(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        junk = tmp_path / "junk.json"
        junk.write_text("[1]", encoding="utf-8")
        for paths in ([junk, junk], [tmp_path / "none.json", junk], [tmp_path, junk]):
            assert main([str(path) for path in paths]) == 2
            found = capsys.readouterr()
            assert found.err.count("\n") == 1
            assert not found.out

    @pytest.mark.parametrize("value", ["1", "0.5", "nan", "much"])
    def test_a_threshold_of_1_or_less_is_refused(self, value: str) -> None:
        with pytest.raises(SystemExit) as ended:
            main(["a.json", "b.json", "--threshold", value])
        assert ended.value.code == 2

    def test_it_runs_as_a_module_without_anything_installed(self, tmp_path: Path) -> None:
        """The job that publishes installs nothing."""
        files = self.files(tmp_path, *(made.run(made.bench(made.KNEE, 1.0, {"floor": each})) for each in (1.0, 2.0)))
        command = [sys.executable, "-S", "-m", "benchmarks.compare", *files]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603
        assert (done.returncode, done.stderr) == (1, "")
