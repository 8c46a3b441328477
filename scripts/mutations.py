"""Plants one-line mutations in the code that decides, and asks the tests that run there whether they notice.

``python scripts/mutations.py`` draws a share of all sites and runs them, in some 60 minutes of one core:

    python scripts/mutations.py --share 0.12 --seed 0 --out mutations.json
    python scripts/mutations.py --again mutations.json --seconds 200 --out again.json  # its survivors, once more
    python scripts/mutations.py --only seqprune/plan.py --share 1

First the tests run once, and which of them ran which line is written down (``.cache`` beside the result). Then every
mutant gets a process of its own, forked from one that has the heavy libraries: it imports the package with the mutated
module and runs the tests of that line, the quick ones first, until one fails. Those that nobody can notice are listed
in ``scripts/equivalent.yaml``, with the reason.
"""

# ruff: noqa: T201 - what it prints is its result

from __future__ import annotations

import argparse
import collections
import importlib.abc
import importlib.util
import itertools
import json
import math
import os
import random
import resource
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import Any

import pytest
import yaml
from mutants import Mutant, mutants

ROOT = Path(__file__).parents[1]
SUBJECTS = (
    *("seqprune/plain.py", "seqprune/plan.py", "seqprune/surgery.py", "seqprune/graph/**/*.py"),
    *("seqprune/select/*.py", "seqprune/budget/*.py", "seqprune/repair/*.py"),
    *(
        f"seqprune/yolo/files/{name}.py"
        for name in ("unpickle", "archive", "bounded", "contained", "guard", "sound", "description", "tensors")
    ),
)
TESTS = (
    *("tests/graph", "tests/select", "tests/criteria", "tests/recovery", "tests/regression", "tests/engine"),
    *("tests/security", "tests/observe", "tests/test_atomic.py", "tests/test_plain.py"),
    *(
        f"tests/yolo/test_{name}.py"
        for name in "unpickle load guard description tensors save rebuild widths factored prompted".split()
    ),
)
OPTIONS = ("-q", "-p", "no:cacheprovider", "-p", "no:benchmark", "-m", "not slow and not architectures and not real")
HEAVY = "torch torchvision numpy scipy.optimize sklearn.manifold kmedoids kneed ultralytics hypothesis PIL.Image"
LONGEST = 4  # times what its tests took without a mutation: longer is noticed
MEMORY = 8 << 30


class Coverage:
    """Which test ran which line of the subjects, and how long it took, as a plugin of pytest."""

    def __init__(self, files: set[str]) -> None:
        self.files = files
        self.lines: dict[str, dict[int, set[str]]] = collections.defaultdict(lambda: collections.defaultdict(set))
        self.seconds: dict[str, float] = {}
        self.test = ""

    def trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        name = frame.f_code.co_filename
        if name not in self.files:
            return None
        lines = self.lines[name]
        lines[frame.f_lineno].add(self.test)

        def local(inner: FrameType, event: str, argument: Any) -> Any:
            lines[inner.f_lineno].add(self.test)
            return local

        return local

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self.test, start = item.nodeid, time.process_time()
        sys.settrace(self.trace)
        threading.settrace(self.trace)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            threading.settrace(None)  # type: ignore[arg-type]
            self.seconds[item.nodeid] = time.process_time() - start
            self.test = ""


def covered(files: Sequence[Path], cache: Path) -> tuple[dict[str, dict[int, set[str]]], dict[str, float]]:
    if not cache.exists():
        run = os.fork()
        if run == 0:
            plugin = Coverage({str(file) for file in files})
            code = pytest.main([*OPTIONS, "-x", *(str(ROOT / test) for test in TESTS)], plugins=[plugin])
            if code == 0:
                lines = {f: {str(n): sorted(t) for n, t in found.items()} for f, found in plugin.lines.items()}
                cache.write_text(json.dumps({"lines": lines, "seconds": plugin.seconds}))
            os._exit(int(code))
        if os.waitstatus_to_exitcode(os.waitpid(run, 0)[1]):
            raise SystemExit("the tests fail without a mutation: mend that first")
    found = json.loads(cache.read_text())
    lines = {f: {int(n): set(tests) for n, tests in by_line.items()} for f, by_line in found["lines"].items()}
    return lines, found["seconds"]


class Planted(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from its mutated source."""

    def __init__(self, path: Path, source: str) -> None:
        parts = path.relative_to(ROOT).with_suffix("").parts
        self.package = parts[-1] == "__init__"
        self.name, self.path, self.source = ".".join(parts[:-1] if self.package else parts), path, source

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
        code: CodeType = compile(self.source, str(self.path), "exec")
        exec(code, vars(module))  # noqa: S102 - that is what this is for


def within(tests: set[str], seconds: dict[str, float], budget: float) -> list[str]:
    """The quickest of the tests that take no longer than that together, one at the least."""
    quickest = sorted(tests, key=lambda test: seconds[test])
    spent = itertools.accumulate(seconds[test] for test in quickest)
    return [test for test, until in zip(quickest, spent, strict=True) if until <= budget] or quickest[:1]


def survives(path: Path, mutant: Mutant, tests: Sequence[str], limit: int, output: Path) -> bool:
    """Whether all tests pass with the mutant in the package's place, in a process of its own, in ``limit`` seconds."""
    if not tests:
        return True
    run = os.fork()
    if run == 0:
        os.setpgid(0, 0)
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 1))
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        with output.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        sys.dont_write_bytecode = True
        sys.meta_path.insert(0, Planted(path, mutant.source))
        os._exit(int(pytest.main([*OPTIONS, "-x", *tests])))
    code = _ended(run, 10 * limit)
    return code in (0, int(pytest.ExitCode.NO_TESTS_COLLECTED))


def _ended(run: int, seconds: float) -> int:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        ended, status = os.waitpid(run, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.killpg(run, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(run, 0)[1])


def key(file: Path, mutant: Mutant) -> str:
    return f"{file.relative_to(ROOT)} {mutant.scope}: {mutant.before} -> {mutant.after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=0.12, help="of all sites")
    parser.add_argument("--seconds", type=float, default=15, help="of tests for one mutant, the quickest first")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=SUBJECTS, help="files or patterns, from the root")
    parser.add_argument("--again", type=Path, help="an earlier result, whose survivors are planted anew")
    parser.add_argument("--tests", nargs="*", help="files of tests to run instead of those of the line, new ones say")
    parser.add_argument("--out", type=Path, default=Path("mutations.json"))
    options = parser.parse_args()
    os.chdir(ROOT)
    for name in HEAVY.split():
        importlib.import_module(name)
    if any(name.startswith("seqprune") for name in sys.modules):
        raise SystemExit("the package was imported too early: what is mutated must be imported after it")
    files = sorted({file for pattern in options.only for file in ROOT.glob(pattern)})
    everything = [file for pattern in SUBJECTS for file in ROOT.glob(pattern)]
    known: tuple[dict[str, dict[int, set[str]]], dict[str, float]] = ({}, {})
    lines, seconds = known if options.tests else covered(everything, options.out.with_suffix(".cache"))
    equivalent = yaml.safe_load((ROOT / "scripts" / "equivalent.yaml").read_text()) or {}
    reasons = {text: reason for reason, texts in equivalent.items() for text in texts}
    draw = random.Random(options.seed)  # noqa: S311 - no secret
    every = [(file, mutant) for file in files for mutant in mutants(file.read_text())]
    sites = len(every)
    chosen = [one for one in every if draw.random() < options.share]
    if options.again:
        survivors = set(json.loads(options.again.read_text())["survived"])
        chosen = [one for one in every if key(*one) in survivors]
    draw.shuffle(chosen)  # so that a run that is stopped has seen a sample too
    result: dict[str, list[str]] = {"killed": [], "survived": [], "equivalent": []}
    for file, mutant in chosen:
        title = key(file, mutant)
        if title in reasons:
            result["equivalent"].append(title)
            continue
        here = lines.get(str(file), {})
        anywhere = set().union(*here.values())
        tests = options.tests or within((here.get(mutant.line) or anywhere) - {""}, seconds, options.seconds)
        limit = 20 + LONGEST * math.ceil(sum(seconds.get(test, options.seconds) for test in tests))
        alive = survives(file, mutant, tests, limit, options.out.with_suffix(".log"))
        result["survived" if alive else "killed"].append(title)
        if alive:
            print(f"{file.relative_to(ROOT)}:{mutant.line} {mutant.scope} ({mutant.kind}, {len(tests)} tests)")
            print(f"    {mutant.before}\n    {mutant.after}", flush=True)
        options.out.write_text(json.dumps({"sites": sites, **result}, indent=1))
    print(f"{sites} sites, " + ", ".join(f"{len(found)} {what}" for what, found in result.items()))


if __name__ == "__main__":
    main()
