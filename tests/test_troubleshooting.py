"""The page of errors quotes what the code says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
SOURCE = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "seqprune").rglob("*.py"))
# Strings as the code joins them: pieces of one message on several lines, fields in braces gone.
SAID = re.sub(r"\{[^{}]*\}", "…", re.sub(r'"\s*\n\s*f?"', "", SOURCE))


def quoted() -> list[str]:
    """What stands in backticks in the first column of the tables."""
    rows = [line for line in PAGE.splitlines() if line.startswith("| `")]
    return [text for row in rows for text in re.findall(r"`([^`]+)`", row.split("|")[1])]


@pytest.mark.parametrize("message", quoted())
def test_a_message_on_the_page_is_said_by_the_code(message: str) -> None:
    for part in re.split(r" ?… ?", message.removeprefix("KeyError: '")):
        assert part.strip(" ,") in SAID, part


def test_the_page_has_messages() -> None:
    assert len(quoted()) > 25
