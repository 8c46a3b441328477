"""Pages of runs as readers see them: in a real browser, light and dark, narrow and wide."""

from __future__ import annotations

from pathlib import Path

import chromium
import pytest
import report_samples as samples

from seqprune.report import training
from seqprune.report.html import write_html

pytestmark = pytest.mark.slow
every_width = pytest.mark.parametrize("width", [360, 1200])
every_scheme = pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
chrome = chromium.chrome


@pytest.fixture(scope="module", params=["run", "training", "compare", "sensitivity"])
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    if request.param == "run":
        write_html(samples.record(), path)
    elif request.param == "training":
        path.write_text(training.page(samples.training()), encoding="utf-8")
    else:
        found = samples.comparison() if request.param == "compare" else samples.sensitivity()
        path.write_text(found.to_html(), encoding="utf-8")
    return path


@every_width
@every_scheme
def test_nothing_is_cut_off_asked_for_or_complained_about(
    chrome: chromium.Browser, page: Path, width: int, dark: bool
) -> None:
    chrome.show(page, width=width, height=900, dark=dark)
    assert chrome.evaluate("document.documentElement.scrollWidth") <= width
    assert chrome.evaluate(chromium.BEYOND) == []
    asked = [e["params"]["request"]["url"] for e in chrome.events if e["method"] == "Network.requestWillBeSent"]
    assert [url for url in asked if not url.startswith("data:image/jpeg;")] == [page.as_uri()]
    loud = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
    assert not [event for event in chrome.events if event["method"] in loud]
    assert chrome.evaluate("document.title.length") > 20  # and not what a name in it asked for


@every_scheme
def test_every_text_can_be_read(chrome: chromium.Browser, page: Path, dark: bool) -> None:
    chrome.show(page, width=1200, height=900, dark=dark)
    contrasts = chrome.evaluate(chromium.CONTRASTS)
    faint = {name: round(value, 2) for name, value in contrasts.items() if value < 4.5 and ".tag" not in name}
    assert not faint


def test_everything_that_scrolls_or_opens_is_reached_by_the_keyboard(chrome: chromium.Browser, page: Path) -> None:
    chrome.show(page, width=360, height=900, dark=False)
    hidden = "[...document.querySelectorAll('.scroll')].filter(e => e.tabIndex !== 0 || !e.getAttribute('aria-label'))"
    assert chrome.evaluate(f"{hidden}.length") == 0
    assert chrome.evaluate(
        "[...document.querySelectorAll('svg')].every(e => e.getAttribute('aria-label') || e.ariaHidden)"
    )
    named = "[...document.querySelectorAll('nav a')].every(e => document.querySelector(e.getAttribute('href')))"
    assert chrome.evaluate(named)
