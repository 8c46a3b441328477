"""Tests that are collected once, and forks of the process that has them: one to see what each runs, one a mutant."""

from __future__ import annotations

import ast
import collections
import contextlib
import ctypes
import functools
import gc
import importlib.abc
import importlib.util
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from inspect import CO_OPTIMIZED
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import pytest

OPTIONS = (
    *(
        "-q",
        "-s",
        "--no-header",
        "--tb=no",
        "--assert=plain",  # the plugin's package would be imported for its assertions, and not from the mutant
        "--disable-warnings",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:benchmark",
        "-p",
        "no:xdist",
    ),
    *("-m", "not slow and not architectures and not real and not pages and not long and not gpu"),
)
LONGEST = 4  # times what a test took without a mutation, and some seconds: longer is noticed
SPARE = 4
MEMORY = 8 << 30


class Collected:
    """Collects the tests, hands them to ``work`` and runs none itself, as a plugin of pytest."""

    def __init__(self, work: Callable[[dict[str, pytest.Item]], None]) -> None:
        self.work = work

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if session.testsfailed:
            raise session.Interrupted("not every test could be collected")
        self.work({item.nodeid: item for item in session.items})
        return True


def collect(tests: Sequence[str], scratch: Path, work: Callable[[dict[str, pytest.Item]], None]) -> None:
    """Collects tests and calls ``work`` with them, by their ids; Hypothesis draws the same every time."""
    from hypothesis import Phase, settings

    settings.register_profile("mutations", derandomize=True, database=None, phases=[Phase.explicit, Phase.generate])
    settings.load_profile("mutations")
    code = pytest.main([*OPTIONS, f"--basetemp={scratch}", *tests], plugins=[Collected(work)])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED):
        raise SystemExit(f"pytest ended with {code}")


def run_one(item: pytest.Item, following: pytest.Item | None) -> bool:
    """Whether a test passes."""
    before = item.session.testsfailed
    item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
    return item.session.testsfailed == before


def watch(items: dict[str, pytest.Item], subjects: Sequence[Path], root: Path, cache: Path) -> None:
    """Writes which statements of the subjects' functions every test runs, by file and first line, and for how long.

    Each test has its fixtures made for it alone. Those that fail are left out and named. Goes on where an earlier run
    was stopped.
    """
    known = json.loads(cache.read_text()) if cache.exists() else {}
    seen: dict[str, set[int]] = {}
    for subject in subjects:
        module = sys.modules.get(".".join(subject.relative_to(root).with_suffix("").parts).removesuffix(".__init__"))
        if module is not None:
            vars(module)[PROBE] = seen.setdefault(str(subject.relative_to(root)), set())
            parts = [code for code in inside(_with_probes(subject)) if code.co_name != "<lambda>"]
            plant(str(subject), {(code.co_name, code.co_firstlineno): code for code in parts})
    for at, (name, item) in enumerate(items.items()):
        if name in known:
            continue
        for lines in seen.values():
            lines.clear()
        start = time.process_time()
        passed = run_one(item, None)
        ran = {file: sorted(lines) for file, lines in seen.items() if lines}
        known[name] = {"seconds": time.process_time() - start, "passed": passed, "lines": ran}
        if not passed:
            print(f"fails without a mutation: {name}", flush=True)  # noqa: T201 - its result
        if at % 50 == 49:
            cache.write_text(json.dumps(known))
    cache.write_text(json.dumps(known))


PROBE = "__lines_that_ran__"


def _with_probes(file: Path) -> CodeType:
    """A module whose functions write down the first line of every statement before they run it."""
    tree = ast.parse(file.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            for block in list(_blocks(node)):
                block[:] = [each for statement in block for each in (_probe(statement), statement)]
    return compile(ast.fix_missing_locations(tree), str(file), "exec", dont_inherit=True)


def _blocks(node: ast.AST) -> Iterator[list[ast.stmt]]:
    """The lists of statements in a function, without those of functions and classes in it."""
    for field in ("body", "orelse", "finalbody"):
        if block := getattr(node, field, None):
            yield block
            for statement in block:
                if not isinstance(statement, ast.FunctionDef | ast.ClassDef):
                    yield from _blocks(statement)
    for inner in [*getattr(node, "handlers", ()), *getattr(node, "cases", ())]:
        yield from _blocks(inner)


def _probe(statement: ast.stmt) -> ast.stmt:
    probe = ast.parse(f"{PROBE}.add({statement.lineno})").body[0]
    return ast.copy_location(probe, statement)


@functools.cache
def live(file: str) -> dict[tuple[str, int], list[FunctionType]]:
    """The functions of a file that there are now, by name and first line."""
    found: dict[tuple[str, int], list[FunctionType]] = collections.defaultdict(list)
    for thing in gc.get_objects():
        if type(thing) is FunctionType and thing.__code__.co_filename == file:
            found[thing.__code__.co_name, thing.__code__.co_firstlineno].append(thing)
    return found


def inside(code: CodeType) -> Iterator[CodeType]:
    """The code of a module's functions and classes, those in others too."""
    for part in code.co_consts:
        if isinstance(part, CodeType):
            yield part
            yield from inside(part)


AT_ONCE = {"<genexpr>", "<listcomp>", "<setcomp>", "<dictcomp>"}
"""Names of code that is a function and runs where it stands."""


def _shell(code: CodeType) -> list[tuple[object, ...]]:
    """What runs when a module is imported: of itself and of the bodies of its classes, without their functions."""
    inner = [part for part in code.co_consts if isinstance(part, CodeType)]
    parts = [part for part in inner if not part.co_flags & CO_OPTIMIZED or part.co_name in AT_ONCE]
    plain = tuple(repr(const) for const in code.co_consts if not isinstance(const, CodeType))
    return [(code.co_code, plain, code.co_names), *(row for part in parts for row in _shell(part))]


def changed(old: CodeType, new: CodeType) -> dict[tuple[str, int], CodeType] | None:
    """The functions that a mutation changed, by name and first line; None where only a new import shows it."""
    before, after = ({}, {})  # type: ignore[var-annotated]
    for found, code in ((before, old), (after, new)):
        for part in inside(code):
            found.setdefault((part.co_name, part.co_firstlineno), []).append(part)
    if _shell(old) != _shell(new):
        return None
    differ = {key: parts[0] for key, parts in after.items() if parts != before.get(key)}
    if any(len(after[key]) > 1 for key in differ if key[0] == "<lambda>") or any(
        parts.co_freevars != before[key][0].co_freevars for key, parts in differ.items() if key in before
    ):
        return None
    return differ


def plant(file: str, differ: dict[tuple[str, int], CodeType]) -> None:
    """Gives the functions that there are their mutated code, wherever they were handed."""
    for key, code in differ.items():
        for function in live(file).get(key, []):
            function.__code__ = code


class Planted(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from its mutated code."""

    def __init__(self, file: Path, root: Path, code: CodeType) -> None:
        parts = file.relative_to(root).with_suffix("").parts
        self.package, self.path, self.code = parts[-1] == "__init__", file, code
        self.name = ".".join(parts[:-1] if self.package else parts)

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        if fullname != self.name:
            return None
        inside = [str(self.path.parent)] if self.package else None
        return importlib.util.spec_from_file_location(
            fullname, self.path, loader=self, submodule_search_locations=inside
        )

    def create_module(self, spec: Any) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        exec(self.code, vars(module))  # noqa: S102 - that is what this is for


def forget() -> None:
    """Nothing that was worked out while tests were collected is remembered."""
    for thing in gc.get_objects():
        if type(thing) is functools._lru_cache_wrapper and (thing.__module__ or "").startswith("seqprune"):
            thing.cache_clear()


def fork(work: Callable[[], int], output: Path, seconds: float) -> int:
    """The exit status of ``work`` in a process of its own, with all that it prints in a file.

    It is ended after ``seconds``, with everything that it started.
    """
    run = os.fork()
    if run == 0:
        code = 1
        try:
            os.setpgid(0, 0)
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # ends with its parent
            with output.open("w") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
            code = work()
        finally:
            os._exit(code)
    until = time.monotonic() + seconds
    try:
        while time.monotonic() < until:
            ended, status = os.waitpid(run, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.01)
    finally:
        _kill(run)
    return os.waitstatus_to_exitcode(os.waitpid(run, 0)[1])


def _kill(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def tried(items: Sequence[pytest.Item], seconds: dict[str, float], found: Path) -> int:
    """Runs tests until one fails, and writes which; each may take some times as long as it did."""
    for at, item in enumerate(items):
        found.write_text(item.nodeid)
        used = resource.getrusage(resource.RUSAGE_SELF)
        limit = used.ru_utime + used.ru_stime + LONGEST * seconds.get(item.nodeid, 5) + SPARE
        resource.setrlimit(resource.RLIMIT_CPU, (int(limit), resource.RLIM_INFINITY))
        if not run_one(item, items[at + 1] if at + 1 < len(items) else None):
            return 1
    found.write_text("")
    return 0
