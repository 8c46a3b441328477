"""Every code block of README and docs is run, or says why not.

Python is run, page by page, in a folder of its own. Shell commands of ours are read by our own command line, with every
option they name: what they then do, other tests do on small networks. A block that a test cannot run says why in a
comment above it.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import blocks
import pytest
import typer

from seqprune.cli.app import app

ALL = [block for page in blocks.pages() for block in blocks.blocks(page)]
RUN = [block for block in ALL if not block.reason]
# Run by tests of their own, which look at what comes out.
ELSEWHERE = {"docs/modules.md": "tests/engine/test_modules.py"}
PYTHON = sorted({block.page for block in RUN if block.kind == "python"} - set(ELSEWHERE))


def test_there_are_blocks_of_both_kinds() -> None:
    assert len([b for b in RUN if b.commands]) > 20
    assert len(PYTHON) >= 4


@pytest.mark.parametrize("block", ALL, ids=str)
def test_a_block_says_what_language_it_is_in(block: blocks.Block) -> None:
    assert block.kind in ("python", "sh", "bash", "yaml", "text", "json", "toml", "dockerfile"), block.kind


@pytest.mark.parametrize("block", [b for b in RUN if b.commands], ids=str)
def test_our_command_line_reads_the_commands(block: blocks.Block) -> None:
    group: Any = typer.main.get_command(app)
    for words in block.commands:
        command, *rest = words
        if command.startswith("-"):  # of the program itself
            assert command in {option for entry in group.params for option in entry.opts}
        else:
            group.commands[command].make_context(command, rest)


def test_an_option_that_does_not_exist_is_found() -> None:
    group: Any = typer.main.get_command(app)
    with pytest.raises(Exception, match=r"(?i)no such option"):
        group.commands["prune"].make_context("prune", ["m.pt", "--no-such-option"])


@pytest.mark.pages
@pytest.mark.parametrize("page", PYTHON)
def test_python_runs_as_it_stands(page: str, stand_ins: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(stand_ins)
    names: dict[str, Any] = {"__name__": "page"}
    for block in (b for b in RUN if b.page == page and b.kind == "python"):
        exec(compile(block.code, str(block), "exec"), names)  # noqa: S102 - our own pages


def test_pages_run_elsewhere_are_named_there() -> None:
    for page, test in ELSEWHERE.items():
        assert Path(page).name.removesuffix(".md") in (blocks.ROOT / test).read_text(encoding="utf-8")
    assert inspect.getdoc(blocks)
