"""The page: what is joined, what is marked, what is said; how it looks is seen in test_dashboard_in_a_browser.py."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import benchmark_files as made
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.compare import Verdict
from benchmarks.dashboard.__main__ import main
from benchmarks.dashboard.page import page
from benchmarks.dashboard.series import Model, Series, model, subject_of, title_of
from benchmarks.history import ordered, parse

ROOT = Path(__file__).parents[2]


def of(*contents: Any, threshold: float = 1.25) -> Model:
    return model(ordered(parse(content, "") for content in contents), threshold)


def ratios(*values: float, **about: Any) -> list[dict[str, Any]]:
    """A history of one benchmark by its ratio to the floor."""
    return [made.run(made.bench(made.KNEE, 1e-3, {"floor": v}), number=n, **about) for n, v in enumerate(values)]


def only(found: Model) -> Series:
    (series,) = found.series()
    return series


class Tags(HTMLParser):
    """Opened tags, checked for being closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "input", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.text.append(data)

    def having(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.seen if name == tag]

    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


class TestSeries:
    def test_a_regression_is_marked_where_it_came_and_not_after(self) -> None:
        series = only(of(*ratios(2.0, 2.1, 3.0, 3.1)))
        verdicts = [point.verdict for point in series.points]
        assert verdicts == [Verdict.SAME, Verdict.SAME, Verdict.REGRESSION, Verdict.SAME]

    def test_an_improvement_is_marked_likewise(self) -> None:
        assert [p.verdict for p in only(of(*ratios(3.0, 2.0))).points][-1] is Verdict.IMPROVEMENT

    def test_the_threshold_decides(self) -> None:
        runs = ratios(2.0, 2.8)
        assert only(of(*runs, threshold=1.3)).verdict() is Verdict.REGRESSION
        assert only(of(*runs, threshold=1.5)).verdict() is Verdict.SAME

    @given(st.lists(st.floats(1e-7, 1e3), min_size=2, max_size=5))
    def test_times_never_mark_anything(self, seconds: list[float]) -> None:
        runs = [made.run(made.bench(made.KNEE, s, {"floor": 2.0}), number=n) for n, s in enumerate(seconds)]
        assert {point.verdict for point in only(of(*runs)).points} == {Verdict.SAME}

    def test_another_cpu_is_the_same_series_of_ratios_and_another_line_of_times(self) -> None:
        runs = [*ratios(2.0, 3.0), *ratios(2.0, cpu="Another")]
        series = only(of(*runs))
        assert len(series.points) == 3
        assert [machine.cpu for machine in series.machines()] == ["Made-up CPU, 2 cores", "Another, 2 cores"]

    def test_a_time_is_not_compared_with_that_of_another_machine(self) -> None:
        first, second = ratios(2.0, 2.0)
        assert only(of(first, second)).time_before() is not None
        second["machine_info"]["cpu"]["brand_raw"] = "Another"
        assert only(of(first, second)).time_before() is None
        second["machine_info"]["cpu"]["brand_raw"] = "Made-up CPU"
        second["machine_info"] |= {"threads": 8, "device": "cpu, 8 threads"}
        assert all(len(series.points) == 1 for series in of(first, second).series())

    def test_a_gpu_is_another_series(self) -> None:
        """A ratio on a GPU says nothing of one on a CPU."""
        found = of(*ratios(2.0), *[made.run(made.bench(made.KNEE, 1.0, {"floor": 9.0}), number=1, device="A GPU")])
        assert [(series.setting, len(series.points)) for series in found.series()] == [
            ("cpu, 1 thread", 1),
            ("A GPU, 1 threads", 1),
        ]
        assert not found.having(Verdict.REGRESSION)
        assert len({series.anchor for series in found.series()}) == 2

    def test_what_the_latest_run_lacks_did_not_regress_there(self) -> None:
        gone = made.run(made.bench("b.py::test_other", 1.0, {}), number=2)
        series = next(s for s in of(*ratios(2.0, 3.0), gone).series() if s.fullname == made.KNEE)
        assert not series.current
        assert series.verdict() is Verdict.SAME

    def test_a_run_without_the_benchmark_leaves_its_place_empty(self) -> None:
        first, second, last = ratios(2.0, 2.0, 2.0)
        second["benchmarks"] = [made.bench("b.py::test_other", 1.0, {})]
        series = next(s for s in of(first, second, last).series() if s.fullname == made.KNEE)
        assert ([point.place for point in series.points], series.runs) == ([0, 2], 3)

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            (made.KNEE, ("Knee of the scores", "64 channels, 3 classes")),
            (made.MASK, ("Masking half of the channels", "yolov8n")),
            ("benchmarks/test_a.py::TestSweep::test_the_predecessors_way", ("Sweep: the predecessor’s way", "")),
            ("benchmarks/test_a.py::TestTheWholeSelection::test_from_a", ("The whole selection from a", "")),
            ("odd", ("Odd", "")),
            ("", ("", "")),
        ],
    )
    def test_names_read_as_sentences(self, name: str, said: tuple[str, str]) -> None:
        assert title_of(name) == said

    def test_a_file_is_a_subject(self) -> None:
        assert subject_of(made.KNEE) == "Clustering"
        assert [subject.name for subject in of(*made.eventful()).subjects] == ["Clustering", "Latency", "Surgery"]


class TestPage:
    def test_is_whole_and_loads_nothing(self) -> None:
        text = page(of(*made.eventful()))
        tags = Tags(text)
        assert not tags.open
        assert not re.search(r"https?:|//[a-z]|@import|url\(", text.replace("// Only", ""))
        assert {attributes.get("href") for attributes in tags.having("link")} == {"data:,"}
        assert not [a for tag in ("img", "script", "iframe") for a in tags.having(tag) if "src" in a]

    def test_every_drawing_says_what_it_shows(self) -> None:
        drawings = Tags(page(of(*made.eventful()))).having("svg")
        assert len(drawings) > 9
        for attributes in drawings:
            assert attributes.get("aria-label") or attributes.get("aria-hidden") == "true"

    def test_every_link_leads_somewhere_and_names_are_used_once(self) -> None:
        tags = Tags(page(of(*made.eventful())))
        names = [attributes["id"] for _, attributes in tags.seen if "id" in attributes]
        assert len(names) == len(set(names))
        targets = {str(a["href"])[1:] for a in tags.having("a")}
        assert targets
        assert targets <= set(names)

    def test_headings_go_down_one_at_a_time(self) -> None:
        levels = [int(tag[1]) for tag, _ in Tags(page(of(*made.eventful()))).seen if re.fullmatch("h[1-6]", tag)]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(after - before <= 1 for before, after in pairwise(levels))

    @pytest.mark.parametrize("threshold", [1.25, 1.5, 2.0])
    def test_states_the_threshold_and_what_it_applies_to(self, threshold: float) -> None:
        words = Tags(page(of(*made.eventful(), threshold=threshold))).words()
        assert f"all ratios lie more than {threshold:g} × above the best level" in words
        assert "never by absolute times" in words

    def test_a_regression_is_said_in_words_and_in_shape(self) -> None:
        text = page(of(*ratios(2.0, 3.0)))
        words = Tags(text).words()
        assert "1 regression beyond 1.25 × in the latest run." in words
        assert "regression: 1.5 × as slow as before" in words
        assert "▲" in words
        assert '<path class="worse"' in text

    def test_nothing_is_marked_where_nothing_happened(self) -> None:
        text = page(of(*ratios(2.0, 2.1)))
        assert "No regression beyond 1.25 × in the latest run." in Tags(text).words()
        assert '<path class="worse"' not in text
        assert "data-changed" not in text.split("<script>")[0]

    def test_the_first_run_says_that_it_is(self) -> None:
        text = page(of(*ratios(2.0)))
        assert "The first run: later ones are compared with it" in Tags(text).words()
        # A point alone is no line: its value says as much.
        assert 'class="point' not in text

    def test_ratios_machine_versions_and_quality_are_there(self) -> None:
        run = made.run(made.bench(made.KNEE, 3e-4, {"floor": 7.5, "predecessor": 0.02}, k=30, kept_by_both=12))
        words = Tags(page(of(run))).words()
        for said in (
            "300 µs",
            "7.5 ×",
            "50 × faster",
            "Made-up CPU, 2 cores",
            "torch 2.15.0",
            "k 30",
            "kept by both 12",
        ):
            assert said in words

    def test_what_comes_from_a_file_is_escaped(self) -> None:
        evil = "<script>alert(1)</script>\"'&"
        run = made.run(made.bench(f"a.py::{evil}[{evil}]", 1.0, {evil: 2.0}, group=evil, note=evil), cpu=evil)
        run["commit_info"] |= {"id": evil, "branch": evil}
        run["machine_info"]["versions"] = {evil: evil}
        run["machine_info"]["device"] = evil
        tags = Tags(page(of(run, run, *ratios(2.0), *ratios(2.0, device=evil))))
        assert not tags.open
        assert len(tags.having("script")) == 1

    def test_many_runs_are_drawn_without_a_point_for_each(self) -> None:
        text = page(of(*ratios(*[2.0] * 60, 3.0)))
        assert "The latest 20 of 61 runs" in text
        assert text.count('<circle class="point') <= 3
        assert text.count('<path class="worse"') == 1

    def test_other_machines_are_not_joined(self) -> None:
        runs = [made.run(made.bench(made.KNEE, 1e-3, {}), number=n, cpu="AB"[n % 2]) for n in range(4)]
        lines = re.findall(r'<path class="line (\w+)" d="M([^"]*)"', page(of(*runs)))
        assert [(kind, len(points.split()) // 2) for kind, points in lines] == [("other", 2), ("main", 2)]


class TestTheCommand:
    def test_writes_the_same_page_again_whatever_the_files_are_called(self, tmp_path: Path) -> None:
        runs = made.eventful()
        made.write(tmp_path / "one", *runs)
        made.write(tmp_path / "two", *reversed(runs))
        pages = []
        for name in ("one", "two", "one"):
            assert main([str(tmp_path / name), "--out", str(tmp_path / "site")]) == 0
            pages.append((tmp_path / "site" / "index.html").read_bytes())
        assert pages[0] == pages[1] == pages[2]

    def test_does_not_depend_on_the_order_of_hashes(self, tmp_path: Path) -> None:
        made.write(tmp_path / "runs", *made.eventful())
        pages = set()
        for seed in ("1", "2"):
            command = [
                sys.executable,
                "-m",
                "benchmarks.dashboard",
                str(tmp_path / "runs"),
                "--out",
                str(tmp_path),
            ]
            subprocess.run(command, cwd=ROOT, env={"PYTHONHASHSEED": seed}, check=True, capture_output=True)  # noqa: S603
            pages.add((tmp_path / "index.html").read_bytes())
        assert len(pages) == 1

    def test_what_was_really_measured_is_drawn(self, tmp_path: Path) -> None:
        source = Path(__file__).with_name("measured.json")
        (tmp_path / "run.json").write_bytes(source.read_bytes())
        assert main([str(tmp_path), "--out", str(tmp_path / "site")]) == 0
        words = Tags((tmp_path / "site" / "index.html").read_text(encoding="utf-8")).words()
        for name in json.loads(source.read_text(encoding="utf-8"))["benchmarks"]:
            assert title_of(name["fullname"])[0] in words

    @pytest.mark.parametrize("what", ["missing", "empty", "junk", "a file", "a file in the way"])
    def test_bad_input_is_one_line_and_ends_with_2(
        self, tmp_path: Path, what: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder, out = tmp_path / "runs", tmp_path / "site"
        if what == "a file":
            folder.write_text("{}")
        elif what != "missing":
            made.write(folder, *(ratios(2.0) if what == "a file in the way" else []))
        if what == "junk":
            (folder / "junk.json").write_text("{", encoding="utf-8")
        if what == "a file in the way":
            out.write_text("")
        assert main([str(folder), "--out", str(out)]) == 2
        found = capsys.readouterr()
        assert found.err.count("\n") == 1
        assert str(tmp_path) in found.err
        assert not out.is_dir()

    def test_text_that_cannot_be_written_is_replaced(self, tmp_path: Path) -> None:
        made.write(tmp_path, made.run(made.bench("a.py::test_\ud800", 1.0, {})))
        assert main([str(tmp_path), "--out", str(tmp_path)]) == 0


class TestLevels:
    def test_what_stays_slow_is_said_after_the_run_that_made_it_so(self) -> None:
        """A regression was marked in one run and gone in the next, which compared itself with the slow one."""
        found = of(*ratios(2.0, 2.0, 3.0, 3.0, 3.0))
        series = only(found)
        since = series.slow_since()
        assert since is not None
        assert (since.place, series.verdict(), found.slow()) == (2, Verdict.SAME, (series,))
        assert "1.5 × its best level, since 0000002" in Tags(page(found)).words()

    def test_ten_commits_of_ten_per_cent_are_marked(self) -> None:
        text = page(of(*ratios(*[2.0] * 5, *[2.0 * 1.1**n for n in range(1, 11)])))
        assert '<path class="worse"' in text
        assert "its best level" in Tags(text).words()

    def test_what_is_as_fast_again_is_slow_no_more(self) -> None:
        assert of(*ratios(2.0, 2.0, 3.0, 3.0, 2.0, 2.0)).slow() == ()

    def test_noise_is_drawn_as_a_band_and_said(self) -> None:
        bands = [made.bench(made.KNEE, 1e-3, {"floor": 2.0}, spread_of_floor=0.07) for _ in range(2)]
        text = page(of(*(made.run(each, number=n) for n, each in enumerate(bands))))
        assert '<path class="band"' in text
        assert "± 7 %" in Tags(text).words()
        assert '<path class="band"' not in page(of(*ratios(2.0, 2.0)))

    def test_a_quality_figure_is_drawn_over_commits(self) -> None:
        shares = [made.bench(made.KNEE, 1e-3, {"floor": 2.0}, quality_map_share=v) for v in (0.9, 0.8)]
        words = Tags(page(of(*(made.run(each, number=n) for n, each in enumerate(shares))))).words()
        assert "map share 0.8 0.889 of its best" in words
