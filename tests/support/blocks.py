"""Code blocks of Markdown pages: what they say, and why one is not run."""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^(?P<indent> *)```(?P<kind>\w*)\n(?P<code>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
_REASON = re.compile(r"<!-- not run: (?P<why>[^>]+) -->\s*$")


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        page: path below the repository.
        line: its first line.
        kind: language, ``python``, ``sh`` …
        code: without indentation.
        reason: why it is not run, from a comment right above it; empty where it is.
    """

    page: str
    line: int
    kind: str
    code: str
    reason: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def commands(self) -> list[list[str]]:
        """Arguments of every ``seqprune`` command in it."""
        found: list[list[str]] = []
        if self.kind not in ("sh", "bash"):
            return found
        for line in self.code.replace("\\\n", " ").splitlines():
            for part in re.split(r"&&|;", line):
                if "seqprune" not in part.split("#")[0]:
                    continue  # of others' commands quotes may go over lines
                words = shlex.split(part, comments=True)
                for start in (["seqprune"], ["python", "-m", "seqprune"]):
                    if words[: len(start)] == start:
                        rest = words[len(start) :]
                        found.append(rest[: rest.index(">")] if ">" in rest else rest)
        return found


def pages() -> list[Path]:
    """README and everything under ``docs``."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(path: Path) -> Iterator[Block]:
    """All blocks of a page, in order."""
    text = path.read_text(encoding="utf-8")
    for found in _BLOCK.finditer(text):
        reason = _REASON.search(text[: found.start()])
        line = text.count("\n", 0, found.start()) + 1
        code = textwrap.dedent(found["code"])
        yield Block(str(path.relative_to(ROOT)), line, found["kind"], code, reason["why"].strip() if reason else "")
