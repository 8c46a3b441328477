"""The page as visitors see it: in a real browser, light and dark, narrow and wide."""

from __future__ import annotations

import io
from pathlib import Path

import benchmark_files as made
import chromium
import pytest
from chromium import BEYOND, CONTRASTS
from PIL import Image

from benchmarks.dashboard.__main__ import main

pytestmark = pytest.mark.slow

NARROW, WIDE = (360, 800), (1400, 900)
every_screen = pytest.mark.parametrize("size", [NARROW, WIDE], ids=["narrow", "wide"])
every_scheme = pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
chrome = chromium.chrome


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A history in which something regressed, something got better, and names and figures are long."""
    folder = tmp_path_factory.mktemp("dashboard")
    runs = made.eventful()
    long = "a_figure_with_a_name_that_goes_on_and_on_without_any_place_to_break_it_anywhere"
    for number, run in enumerate(runs):
        name = "benchmarks/test_surgery.py::test_" + "x" * 90 + "[" + "y" * 90 + "]"
        run["benchmarks"].append(made.bench(name, 1e-9 * (number + 1), {"floor": 12345.0}, group="z" * 80, **{long: 1}))
    assert main([str(made.write(folder / "history", *runs)), "--out", str(folder)]) == 0
    return folder / "index.html"


def screen(chrome: chromium.Browser) -> Image.Image:
    return Image.open(io.BytesIO(chrome.screenshot())).convert("RGB")


def luminance(colour: tuple[int, ...]) -> float:
    return sum(colour) / 3


@every_screen
@every_scheme
class TestEveryVisitor:
    def test_sees_the_page_in_the_colours_they_prefer(
        self, chrome: chromium.Browser, page: Path, size: tuple[int, int], dark: bool
    ) -> None:
        chrome.show(page, width=size[0], height=size[1], dark=dark)
        shot = screen(chrome)
        assert shot.size == size
        colours = sorted(shot.getcolors(shot.width * shot.height), reverse=True)
        share, ground = colours[0][0] / (shot.width * shot.height), colours[0][1]
        assert (luminance(ground) < 60) is dark
        assert (luminance(ground) > 240) is not dark
        # Not empty, not crowded, and the text is as far from the ground as it can be.
        assert 0.5 < share < 0.97
        other = [colour for count, colour in colours if count > 20 and (luminance(colour) > 180) is dark]
        assert other
        assert len(colours) > 50

    def test_sees_a_regression_and_an_improvement_drawn(
        self, chrome: chromium.Browser, page: Path, size: tuple[int, int], dark: bool
    ) -> None:
        chrome.show(page, width=size[0], height=size[1], dark=dark)
        found = []
        for mark in ("worse", "better", "line"):
            chrome.evaluate(f"document.querySelector('svg .{mark}').scrollIntoView({{block: 'center'}})")
            x, y, colour = chrome.evaluate(
                f"(() => {{ const e = document.querySelector('svg .{mark}'), r = e.getBoundingClientRect();"
                " const { fill, stroke } = getComputedStyle(e);"
                " return [r.x + r.width / 2, r.y + r.height / 2, fill === 'none' ? stroke : fill]; })()"
            )
            seen = screen(chrome).getpixel((round(x), round(y)))
            found.append(colour)
            assert mark == "line" or f"rgb{seen}" == colour
        # Apart from each other, from the line they lie on, and from what has no colour given.
        assert len({*found, "rgb(0, 0, 0)"}) == 4

    def test_never_scrolls_sideways(
        self, chrome: chromium.Browser, page: Path, size: tuple[int, int], dark: bool
    ) -> None:
        chrome.show(page, width=size[0], height=size[1], dark=dark)
        chrome.evaluate("document.querySelectorAll('details').forEach((e) => { e.open = true; })")
        assert chrome.evaluate("innerWidth") == size[0]
        assert chrome.evaluate("document.documentElement.scrollWidth") == size[0]
        assert chrome.evaluate(BEYOND) == []

    def test_can_read_everything(self, chrome: chromium.Browser, page: Path, size: tuple[int, int], dark: bool) -> None:
        chrome.show(page, width=size[0], height=size[1], dark=dark)
        chrome.evaluate("document.querySelectorAll('details').forEach((e) => { e.open = true; })")
        contrasts = chrome.evaluate(CONTRASTS)
        assert len(contrasts) > 15
        assert {name: round(found, 2) for name, found in contrasts.items() if found < 4.5} == {}


def test_light_and_dark_show_the_same_in_other_colours(chrome: chromium.Browser, page: Path) -> None:
    shots, texts = [], []
    for dark in (False, True):
        chrome.show(page, width=1400, height=900, dark=dark)
        shots.append(screen(chrome))
        texts.append(chrome.evaluate("document.body.innerText"))
    assert texts[0] == texts[1]
    assert shots[0].tobytes() != shots[1].tobytes()


def test_contents_stand_beside_the_rows_or_above_them(chrome: chromium.Browser, page: Path) -> None:
    for (width, height), beside in ((NARROW, False), (WIDE, True)):
        chrome.show(page, width=width, height=height, dark=False)
        nav, rows = (
            chrome.evaluate(f"document.querySelector('{n}').getBoundingClientRect().toJSON()") for n in ("nav", "main")
        )
        assert (nav["right"] <= rows["left"]) is beside
        assert (nav["bottom"] <= rows["top"]) is not beside


def test_nothing_is_fetched_and_nothing_goes_wrong(chrome: chromium.Browser, page: Path) -> None:
    chrome.show(page, width=1400, height=900, dark=False)
    chrome.evaluate("new Promise((done) => setTimeout(done, 200))")
    fetched = [e["params"]["request"]["url"] for e in chrome.events if e["method"] == "Network.requestWillBeSent"]
    assert [url for url in fetched if not url.startswith("data:")] == [page.as_uri()]
    assert not [e for e in chrome.events if e["method"] in ("Runtime.exceptionThrown", "Log.entryAdded")]


def test_the_filter_narrows_rows_and_contents(chrome: chromium.Browser, page: Path) -> None:
    chrome.show(page, width=1400, height=900, dark=False)
    shown = "Array.from(document.querySelectorAll('{}')).filter((e) => e.checkVisibility()).map((e) => e.innerText)"

    def rows() -> list[str]:
        found: list[str] = chrome.evaluate(shown.format(".row h4"))
        return found

    def type_(text: str) -> None:
        chrome.evaluate(
            f"(() => {{ const e = document.querySelector('#words'); e.value = {text!r};"
            " e.dispatchEvent(new Event('input', {bubbles: true})); })()"
        )

    assert len(rows()) == 4
    type_("KNEE 64")
    assert rows() == ["Knee of the scores"]
    assert chrome.evaluate(shown.format("h2")) == ["How to read this", "Clustering", "Runs"]
    assert chrome.evaluate(shown.format("nav > ul > li > a")) == ["Clustering", "Runs"]
    assert chrome.evaluate("document.querySelector('output').value") == "1 of 4 shown"
    type_("nothing has this name")
    assert rows() == []
    type_("")
    assert len(rows()) == 4
    chrome.evaluate("document.querySelector('input[type=checkbox]').click()")
    assert rows() == ["Knee of the scores"]


def test_without_scripts_the_whole_page_is_there(chrome: chromium.Browser, page: Path) -> None:
    chrome.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        chrome.show(page, width=1400, height=900, dark=False)
        text = chrome.call("DOM.getDocument", depth=0)["root"]["nodeId"]
        forms = chrome.call("DOM.querySelector", nodeId=text, selector="form.filter[hidden]")["nodeId"]
        hidden = chrome.call("DOM.querySelectorAll", nodeId=text, selector=".row[hidden]")["nodeIds"]
        seen = screen(chrome)
    finally:
        chrome.call("Emulation.setScriptExecutionDisabled", value=False)
    assert forms
    assert not hidden
    assert len(seen.getcolors(seen.width * seen.height)) > 50
