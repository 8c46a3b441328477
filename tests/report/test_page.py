"""What the page of a run says, and what it never says."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import report_samples as samples

from seqprune.cli.app import call
from seqprune.engine.record import Measurements
from seqprune.errors import InputError
from seqprune.report import html
from seqprune.report.html import page, page_of

VOID = {"meta", "br", "img", "link"}


class _Balanced(HTMLParser):
    """Fails where elements are not closed in the order they were opened."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_stands_alone_and_escapes_everything() -> None:
    text = page(samples.record())
    parser = _Balanced()
    parser.feed(text)
    assert parser.open == []
    assert not parser.tags & {"img", "script", "iframe"}
    assert re.findall("<link[^>]*>", text) == ['<link rel="icon" href="data:,">']  # else a browser asks for one
    assert not re.search(r"https?:|@import|url\(", text)
    assert "&lt;img src=x" in text
    assert "prefers-color-scheme: dark" in text


def test_the_trivial_ways_stand_beside_the_pruned_network() -> None:
    """They were measured, kept in ``report.json``, and shown nowhere."""
    text = page(samples.record())
    for said in (
        "Beside the trivial ways",
        "unpruned, int8",
        "pruned, int8",
        "45.0%",
        "98.0%",
        "0.4900 (0.5000 in floats)",
        "48.0%",
        "on squares",
    ):
        assert said in text, said
    assert text.count("<circle", text.index('id="front"'), text.index('id="pictures"')) == 5
    assert "time in openvino&lt;img" in text
    without = page(replace(samples.record(), front=(), timed={}))
    assert 'id="front"' not in without
    assert "time in torch" in without


def test_reports_of_before_eight_bits_are_read() -> None:
    old = [{name: value for name, value in point.items() if name != "bits"} for point in samples.front()[:2]]
    text = page_of(samples.record().plain() | {"front": old}, {})
    assert "unpruned, int8" not in text
    assert "on squares" not in text


def test_it_shows_what_was_measured_and_done() -> None:
    text = page(samples.record())
    for said in (
        *("750,000", "1.50 MB", "6.00 GFLOPs", "40.0 ms", "-25.0 %", "-0.2500", "118 / 256", "pair with 24 between"),
        *("knee: 8 clusters", "held-out loss 8.10 to 4.20", "nothing was held out", "broken.jpg", "Xeon", "2026-11-28"),
        *("2 found before, 1 after", "skipped: only", "torch", "Accuracy along the steps", "0.4100", "as it is saved"),
    ):
        assert said in text, said


def test_what_was_not_measured_is_not_there() -> None:
    """A run without images said ``objects 0, classes 0, seconds 0.0`` of every layer."""
    bare = samples.record()
    step = replace(bare.steps[0], objects=0, classes=(), seconds=0.0, seen=None)
    size = Measurements(10, 1.0)
    empty: Any = {
        "network": (),
        "classes": {},
        "along": (),
        "made": {},
        "pictures": (),
        "repairs": (),
        "unreadable": (),
        "front": (),
        "timed": {},
    }
    text = page(replace(bare, steps=(step,), before=size, after=size, **empty))
    assert "Accuracy was not measured" in text
    for title in (
        "time in torch",
        "mAP",
        "Steps",
        "The network",
        "Class by class",
        "Accuracy along",
        "What is detected",
        "Repaired",
    ):
        assert title not in text, title


def test_figures_and_drawings_lie_in_files_of_their_own() -> None:
    record = samples.record()
    report, drawn = record.plain(), record.drawn()
    assert "pictures" not in report
    assert all("seen" not in step for step in report["steps"])
    assert set(drawn) == {"names", "layers", "pictures"}
    assert page_of(report, json.loads(json.dumps(drawn))) == page(record)


def write(folder: Path) -> Path:
    (folder / "report.json").write_text(samples.record().to_json())
    (folder / "drawn.json").write_text(json.dumps(samples.record().drawn()))
    return folder


def test_a_page_is_made_anew_from_a_folder(tmp_path: Path, capsys: Any) -> None:
    assert call(["report", str(write(tmp_path))]) == 0
    assert (tmp_path / "report.html").read_text() == page(samples.record())
    assert capsys.readouterr().out == f"page in {tmp_path / 'report.html'}\n"


def test_a_report_that_earlier_versions_wrote_is_still_shown(tmp_path: Path) -> None:
    old = samples.record().plain() | {"preset": "seed"}
    for name in ("network", "classes", "made"):
        del old[name]
    (tmp_path / "report.json").write_text(json.dumps(old))
    assert call(["report", str(tmp_path), "--out", str(tmp_path / "new.html")]) == 0
    assert "preset seed" in (tmp_path / "new.html").read_text()


@pytest.mark.parametrize(
    "broken",
    [
        {"before": 3},
        {"steps": [{"layer": 1}]},
        {"verify": {}},
        {"network": [{"name": "x", "before": "wide", "after": 2}]},
        {"classes": [1]},
    ],
    ids=lambda value: next(iter(value)),
)
def test_what_is_no_report_is_refused_in_a_line(broken: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="no report of a run"):
        page_of(samples.record().plain() | broken, {})


@pytest.mark.parametrize("jpeg", ["'/><script>alert(1)</script>", "https://example.org/x.png", ""])
def test_a_picture_that_is_none_is_left_out(jpeg: str) -> None:
    text = page_of(samples.record().plain(), {"pictures": [samples.picture() | {"jpeg": jpeg}]})
    assert "What is detected" not in text
    assert "alert(1)" not in text


def test_a_folder_without_a_report_is_refused(tmp_path: Path, capsys: Any) -> None:
    assert call(["report", str(tmp_path)]) == 2
    assert "give the folder of a finished run" in capsys.readouterr().err


def test_its_title_says_what_was_done() -> None:
    """Pairs were counted as layers that were pruned."""
    step, other = ({"status": status} for status in ("pruned", "skipped"))
    pair, layer = {"rank": 8}, {"rank": None}
    for steps, network, said in (
        ([step, step, other], [layer], "2 of 3 layers pruned"),
        ([step, step], [pair, pair, layer], "2 convolutions made of two"),
        ([step, step, other], [pair, layer], "1 convolution made of two, 1 of 2 layers pruned"),
        ([other], None, "0 of 1 layers pruned"),
    ):
        assert html._done({"steps": steps, "network": network}) == said
