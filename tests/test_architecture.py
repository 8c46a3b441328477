"""The house: imports go one way, one room knows Ultralytics, files stay small."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "seqprune"
# A room imports from those above it in this list, never from one below: only `run` and what comes after knows both the
# engine and Ultralytics' networks.
ROOMS = (
    "errors",  # one family of exceptions
    "atomic",  # files that are there whole or not at all
    "plain",  # files as data: sizes, JSON, YAML, text
    "aside",  # what libraries print past Python
    "graph",  # where channels go
    "plan",  # what stays
    "surgery",  # mask, compact, verify
    "select",  # which channels tell classes apart alike: numbers in, indices out
    "observe",  # what channels do
    "runtimes",  # where networks run, and how long they take there
    "budget",  # the whole network to a target
    "repair",  # what removal broke, without training
    "engine",  # one run, for any network: whoever knows it answers as a task
    "report",  # records as pages and text
    "yolo",  # the task of Ultralytics' networks, and the only room that imports it
    "sources",  # networks and their data, as a caller names them
    "run",  # seqprune.prune
    "measure",  # methods, layers one at a time, the original failures
    "demo",
    "testing",  # the suite that others run on their model and their pruner
    "cli",
    "__main__",
)


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(source: str) -> Iterator[str]:
    """Full names of everything a module imports, wherever in it; relative imports stay in their room."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def upward(room: str, source: str) -> list[str]:
    """Imports of a module in ``room`` that go against the order of the rooms."""
    found = []
    for name in imported(source):
        parts = name.split(".")
        if parts[0] != "seqprune" or len(parts) < 2 or parts[1] not in ROOMS:
            continue
        if ROOMS.index(parts[1]) > ROOMS.index(room):
            found.append(name)
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_one_way(path: Path) -> None:
    room = room_of(path)
    if room == "__init__":
        return
    assert room in ROOMS, f"{room} is no room of the list: say where it stands"
    assert not upward(room, path.read_text())


def longer(source: str, most: int) -> set[str]:
    """Functions of more lines than that, from ``def`` to their end, with signature and docstring."""
    functions = (n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))
    return {each.name for each in functions if (each.end_lineno or 0) - each.lineno + 1 > most}


def test_a_long_function_is_found() -> None:
    assert longer("def f():\n    a = 1\n    return a\n\ndef g(): ...\n", 2) == {"f"}


def test_an_import_against_the_order_is_found() -> None:
    assert upward("select", "from seqprune.observe.batch import Batch") == ["seqprune.observe.batch.Batch"]
    assert upward("graph", "def f():\n    import seqprune.plan") == ["seqprune.plan"]
    assert upward("plan", "from seqprune import surgery") == ["seqprune.surgery"]
    assert not upward("surgery", "from seqprune.graph import trace\nimport torch")


def test_only_one_room_knows_ultralytics() -> None:
    outside = [p for p in modules() if room_of(p) != "yolo"]
    folders = [ROOT / "tests" / n for n in ("graph", "select", "engine", "observe", "support")]
    for path in (*outside, *(p for folder in folders for p in folder.glob("*.py"))):
        assert not [n for n in imported(path.read_text()) if n.split(".")[0] == "ultralytics"], path


def test_importing_the_package_imports_neither_torch_nor_ultralytics() -> None:
    """`seqprune --help` took six seconds."""
    code = "import seqprune, sys; print([m for m in ('torch', 'ultralytics', 'sklearn') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    assert done.stdout == "[]\n"


def test_every_public_name_is_there() -> None:
    import seqprune

    assert all(getattr(seqprune, name) is not None for name in seqprune.__all__)


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_are_small_and_errors_are_named(path: Path) -> None:
    source = path.read_text()
    assert source.count("\n") <= 300
    assert not longer(source, 60)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None
            assert ast.unparse(node.type) not in ("Exception", "BaseException")
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "print":
            assert room_of(path) in ("cli", "report")
