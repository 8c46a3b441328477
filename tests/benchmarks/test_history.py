"""Runs on disk: what is read, in which order, and what of a file is kept."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import benchmark_files as made
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import history

MEASURED = Path(__file__).with_name("measured.json")


def test_a_file_that_was_really_measured_is_read() -> None:
    run = history.read(MEASURED)
    assert run.commit.startswith("01a7aeb")
    assert not run.dirty
    assert run.machine == history.Machine("cpu, 1 thread", 1, "AMD EPYC, 2 cores")
    assert run.versions["torch"] == "2.15.0"
    knee = run.rows[made.KNEE]
    assert knee.group == "knee, (64, 3)"
    assert knee.ratios.keys() == knee.beside.keys() == {"floor", "predecessor"}
    assert knee.figures == {"k": 30}
    for name, ratio in knee.ratios.items():
        assert ratio == pytest.approx(knee.seconds / knee.beside[name], rel=0.02)


def test_commits_come_in_their_order_not_in_that_of_file_names(tmp_path: Path) -> None:
    runs = [made.run(made.bench(made.KNEE, 1.0, {"floor": 2.0}), number=n) for n in range(5)]
    assert [run.short for run in history.load(made.write(tmp_path, *runs))] == [f"{n:07x}" for n in range(5)]


@given(st.permutations(range(6)))
def test_the_order_of_reading_does_not_matter(order: list[int]) -> None:
    files = made.eventful()[:6]
    assert history.ordered(history.parse(files[n], "") for n in order) == history.ordered(
        history.parse(each, "") for each in files
    )


def test_a_commit_without_a_time_goes_by_when_it_was_measured() -> None:
    content = made.run(made.bench(made.KNEE, 1.0, {}))
    content["commit_info"] = {"error": "not a checkout"}
    run = history.parse(content, "")
    assert (run.commit, run.committed) == ("unversioned", run.measured)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ('"text"', "it has no list of benchmarks"),
        ("[]", "it has no list of benchmarks"),
        ('{"benchmarks": 3}', "it has no list of benchmarks"),
        ('{"benchmarks": []}', "`datetime` is missing"),
        ('{"benchmarks": [], "datetime": "2026-01-01T00:00:00"}', "no benchmark ran"),
        ('{"benchmarks": [[]], "datetime": "2026-01-01"}', "benchmark 0"),
        ('{"benchmarks": [{"fullname": "a"}], "datetime": "2026-01-01"}', "benchmark 0 lacks 'stats'"),
        ('{"benchmarks": [{"fullname": "a", "stats": {"min": 0}}], "datetime": "2026-01-01"}', "min is 0"),
        ('{"benchmarks": [{"fullname": "a", "stats": {"min": "x"}}], "datetime": "2026-01-01"}', "could not convert"),
        ('{"benchmarks": [{"fullname": "a", "stats": {"min": NaN}}], "datetime": "2026-01-01"}', "min is nan"),
        (
            '{"benchmarks": [{"fullname": "a", "stats": {"min": 1}, "extra_info": {"ratio_to_floor": Infinity}}],'
            ' "datetime": "2026-01-01"}',
            "ratio_to_floor is inf",
        ),
    ],
)
def test_what_is_no_run_is_refused_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "junk.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(history.HistoryError) as found:
        history.read(path)
    assert said in str(found.value)
    assert str(path) in str(found.value)
    assert "\n" not in str(found.value)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "junk.json"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(history.HistoryError, match="not JSON"):
        history.read(path)


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
places = st.sampled_from(
    [
        *(("machine_info",), ("machine_info", "cpu"), ("machine_info", "versions"), ("machine_info", "threads")),
        *(("commit_info",), ("commit_info", "id"), ("commit_info", "time"), ("datetime",), ("benchmarks",)),
        *(("benchmarks", 0), ("benchmarks", 0, "stats"), ("benchmarks", 0, "stats", "min")),
        *(("benchmarks", 0, "extra_info"), ("benchmarks", 0, "extra_info", "ratio_to_floor")),
        *(("benchmarks", 0, "group"), ("benchmarks", 0, "fullname"), ("benchmarks", 0, "stats", "rounds")),
    ]
)


@given(places, json_values)
def test_anything_anywhere_in_a_file_is_read_or_refused(place: tuple[Any, ...], value: Any) -> None:
    content = made.run(made.bench(made.KNEE, 1.0, {"floor": 2.0}))
    inner: Any = content
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = value
    try:
        run = history.parse(content, "a file")
    except history.HistoryError as error:
        said = str(error)
    else:
        said = "a file: "
        assert run.rows
    assert said.startswith("a file: ")


@pytest.mark.parametrize("content", [None, {}])
def test_a_missing_or_empty_folder_is_refused(tmp_path: Path, content: dict[str, str] | None) -> None:
    folder = tmp_path / "history"
    if content is not None:
        folder.mkdir()
    with pytest.raises(history.HistoryError, match=str(folder)):
        history.load(folder)


class TestAdd:
    def test_keeps_what_is_shown_and_drops_what_is_not(self, tmp_path: Path) -> None:
        source = made.write(tmp_path / "new", made.run(made.bench(made.KNEE, 1.0, {"floor": 2.0}, k=3))) / "001.json"
        target = history.add(source, tmp_path / "history")
        assert target.name == "2026-03-01-0000000.json"
        assert history.read(target) == history.read(source)
        text = target.read_text(encoding="utf-8")
        for dropped in ("a-secret-name", "6.1-of-a-machine", "a-folder", "flags", '"data"', "perf_counter"):
            assert dropped in source.read_text(encoding="utf-8")
            assert dropped not in text

    def test_the_same_run_twice_is_one_file(self, tmp_path: Path) -> None:
        first = history.add(MEASURED, tmp_path)
        assert history.add(MEASURED, tmp_path) == first
        # What lies in a history can be put into another.
        assert history.add(first, tmp_path) == first
        assert list(tmp_path.iterdir()) == [first]

    def test_another_run_of_the_same_commit_and_day_is_another_file(self, tmp_path: Path) -> None:
        content = json.loads(MEASURED.read_text(encoding="utf-8"))
        content["machine_info"]["device"] = "a GPU"
        other = tmp_path / "other.json"
        other.write_text(json.dumps(content), encoding="utf-8")
        folder = tmp_path / "history"
        names = [history.add(path, folder).name for path in (MEASURED, other, MEASURED, other)]
        assert names == ["2026-11-24-01a7aeb.json", "2026-11-24-01a7aeb-2.json"] * 2

    def test_a_commit_that_is_a_path_leads_nowhere(self, tmp_path: Path) -> None:
        content = made.run(made.bench(made.KNEE, 1.0, {}))
        content["commit_info"]["id"] = "/../x/y"
        source = made.write(tmp_path / "new", content) / "001.json"
        assert history.add(source, tmp_path / "history").name == "2026-03-01-xy.json"

    def test_what_it_keeps_is_read_by_pytest_benchmark(self, tmp_path: Path) -> None:
        kept = json.loads(history.add(MEASURED, tmp_path).read_text(encoding="utf-8"))
        wanted = {"min", "max", "mean", "stddev", "median", "iqr", "outliers", "ops", "rounds", "iterations"}
        assert all(wanted <= each["stats"].keys() for each in kept["benchmarks"])

    def test_says_where_and_ends_with_0(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert history.main(["add", str(MEASURED), str(tmp_path)]) == 0
        assert capsys.readouterr().out == f"{tmp_path / '2026-11-24-01a7aeb.json'}\n"

    def test_junk_ends_with_2_and_leaves_nothing(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        junk = tmp_path / "junk.json"
        junk.write_text("{}", encoding="utf-8")
        assert history.main(["add", str(junk), str(tmp_path / "history")]) == 2
        assert capsys.readouterr().err.count("\n") == 1
        assert not (tmp_path / "history").exists()


def test_one_thread_is_said_as_such() -> None:
    """Eleven threads became `11 thread`."""
    for device, said in (("cpu, 1 threads", "cpu, 1 thread"), ("cpu, 11 threads", "cpu, 11 threads")):
        run = history.parse(made.run(made.bench(made.KNEE, 1.0, {}), device=device), "")
        assert run.machine.setting == said


def test_a_gpu_says_its_threads_apart() -> None:
    run = history.parse(made.run(made.bench(made.KNEE, 1.0, {}), device="A GPU"), "")
    assert run.machine.setting == "A GPU, 1 threads"


def test_files_of_a_folder_are_found_whatever_they_are_called(tmp_path: Path) -> None:
    names = [f"{random.Random(n).random()}.json" for n in range(3)]  # noqa: S311
    for number, name in enumerate(names):
        content = made.run(made.bench(made.KNEE, 1.0, {}), number=number)
        (tmp_path / name).write_text(json.dumps(content), encoding="utf-8")
    (tmp_path / "README.md").write_text("not a run")
    assert len(history.load(tmp_path)) == 3
