"""Pictures of the pages can be drawn: they were escaped once, and no page said so."""

from __future__ import annotations

import re
from xml.dom import minidom

import blocks
import pytest

PICTURES = sorted((blocks.ROOT / "docs" / "pictures").glob("*.svg"))


@pytest.mark.parametrize("file", PICTURES, ids=lambda path: path.name)
def test_a_picture_is_an_svg(file: object) -> None:
    root = minidom.parse(str(file)).documentElement  # noqa: S318 - our own file
    assert root is not None
    assert root.tagName == "svg"
    assert root.getAttribute("xmlns") == "http://www.w3.org/2000/svg"
    assert root.getElementsByTagName("path") or root.getElementsByTagName("rect")


def test_every_picture_is_shown_and_every_one_shown_is_there() -> None:
    shown = {
        name
        for page in blocks.pages()
        for name in re.findall(r"\]\((?:\.\./)?pictures/([^)]+)\)", page.read_text(encoding="utf-8"))
    }
    assert shown == {file.name for file in PICTURES}
