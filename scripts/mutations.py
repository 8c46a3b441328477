"""Plants one-line mutations in the code that decides, and asks the tests that run there whether they notice.

``python scripts/mutations.py`` draws sites, stratified over the files, until its time is over:

    python scripts/mutations.py --minutes 90 --seed 0 --out mutations.json
    python scripts/mutations.py --again mutations.json --seconds 200 --out again.json  # its survivors, once more
    python scripts/mutations.py --only seqprune/plan.py --minutes 10

First every test runs once, and which lines it runs is written down (``.cache`` beside the result). Then the tests are
collected once, and every mutant gets a fork of the process that has them: its functions get their mutated code in
place, and the tests of that line run, the quick ones first, until one fails. What runs when a module is imported needs
an import of its own, and gets a tenth of the time more. Those that nobody can notice are listed in
``scripts/equivalent.yaml``, with the reason.
"""

# ruff: noqa: T201 - what it prints is its result

from __future__ import annotations

import argparse
import collections
import functools
import gc
import importlib
import itertools
import json
import os
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import planting
import pytest
import yaml
from mutants import Mutant, mutants, mutated

ROOT = Path(__file__).parents[1]
SUBJECTS = (
    *("seqprune/plain.py", "seqprune/plan.py", "seqprune/surgery.py", "seqprune/graph/**/*.py"),
    *("seqprune/select/*.py", "seqprune/budget/*.py", "seqprune/repair/*.py"),
    "seqprune/yolo/files/*.py",
)
FAVOURED = ("select", "budget", "repair", "surgery.py", "rules", "proof.py", "widths.py")
"""Parts of paths that are drawn three times as often."""
TESTS = (
    *("tests/graph", "tests/select", "tests/criteria", "tests/recovery", "tests/regression", "tests/security"),
    *(
        "tests/engine/test_modules.py",
        "tests/architectures/test_standins.py",
        "tests/test_atomic.py",
        "tests/test_plain.py",
    ),
    *(f"tests/yolo/test_{name}.py" for name in "archive bounded carried description guard known left_out load".split()),
    *(f"tests/yolo/test_{name}.py" for name in "old_files pickles sound tensors unpickle".split()),
)
HEAVY = (
    "torch torch._dynamo torchvision numpy scipy.optimize sklearn.manifold kmedoids kneed ultralytics hypothesis "
    "PIL.Image"
)
"""What every fork would otherwise import for itself: the first call of an optimiser takes torch's compiler."""
FATES = ("killed", "survived", "unreached")


class Site(NamedTuple):
    file: Path
    mutant: Mutant

    @property
    def title(self) -> str:
        mutant = self.mutant
        return f"{self.file.relative_to(ROOT)} {mutant.scope}: {mutant.before} -> {mutant.after}"


class Known(NamedTuple):
    """What a run without mutations saw: tests by file and line, and seconds of each."""

    lines: dict[str, dict[int, set[str]]]
    seconds: dict[str, float]

    def time(self, test: str) -> float:
        """In seconds; a new test is asked in any case."""
        return self.seconds.get(test, 0.0)

    def tests(self, site: Site, imported: bool) -> set[str]:
        """Those that run the mutated line; of what runs on import, those that run anything of the file."""
        here = self.lines.get(str(site.file.relative_to(ROOT)), {})
        if imported:
            return set().union(*here.values())
        return here.get(site.mutant.first, set())


def read(cache: Path) -> Known:
    lines: dict[str, dict[int, set[str]]] = collections.defaultdict(lambda: collections.defaultdict(set))
    seen = json.loads(cache.read_text())
    for name, found in seen.items():  # those that fail notice anything: they are known, and asked of nothing
        for file, numbers in found["lines"].items() if found["passed"] else ():
            for number in numbers:
                lines[file][number].add(name)
    return Known(lines, {name: found["seconds"] for name, found in seen.items()})


def stratified(sites: Iterable[Site], seed: int) -> list[Site]:
    """All sites in a drawn order: any beginning of it has about the same share of every file."""
    draw = random.Random(seed)  # noqa: S311 - no secret
    by_file = collections.defaultdict(list)
    for site in sites:
        by_file[site.file].append(site)
    places = []
    for file, own in by_file.items():
        draw.shuffle(own)
        weight = 3 if set(FAVOURED) & set(file.parts) else 1
        places += [((at + draw.random()) / len(own) / weight, site) for at, site in enumerate(own)]
    return [site for _, site in sorted(places, key=lambda place: place[0])]


class Result:
    """What became of every mutant, written after each."""

    def __init__(self, out: Path, sites: int) -> None:
        self.out, self.fates = out, {fate: [] for fate in FATES}  # type: ignore[var-annotated]
        self.kills: collections.Counter[str] = collections.Counter()
        self.sites = sites
        self.reread()

    def reread(self) -> None:
        if self.out.exists():
            self.fates |= {fate: json.loads(self.out.read_text())[fate] for fate in FATES}

    def add(self, site: Site, fate: str, about: str = "") -> None:
        self.fates[fate].append(site.title)
        if fate in ("survived", "unreached"):
            mutant = site.mutant
            print(f"{fate}: {site.file.relative_to(ROOT)}:{mutant.line} {mutant.scope} ({mutant.kind}) {about}")
            print(f"    {mutant.before}\n    {mutant.after}", flush=True)
        self.out.write_text(json.dumps({"sites": self.sites, **self.fates}, indent=1))

    def planted(self) -> set[str]:
        return {title for found in self.fates.values() for title in found}

    def __str__(self) -> str:
        return f"{self.sites} sites, " + ", ".join(f"{len(found)} {fate}" for fate, found in self.fates.items())


def within(tests: set[str], known: Known, result: Result, budget: float) -> list[str]:
    """The quickest of the tests that take no longer than that together, one at the least; those that have noticed
    others are asked before, and the many cases of one test, which see much the same, after those of others."""
    cost: dict[str, float] = {}
    cases: collections.Counter[str] = collections.Counter()
    for test in sorted(tests, key=lambda test: (known.time(test), test)):
        cases[test.partition("[")[0]] += 1
        cost[test] = known.time(test) * cases[test.partition("[")[0]] / (1 + result.kills[test])
    first = sorted(tests, key=lambda test: (cost[test], test))
    spent = itertools.accumulate(map(known.time, first))
    return [test for test, until in zip(first, spent, strict=True) if until <= budget] or first[:1]


class Planting(NamedTuple):
    """What a run of mutants goes by: ``seconds`` of tests for each, and ``minutes`` for all."""

    known: Known
    result: Result
    seconds: float
    minutes: float
    scratch: Path

    def settle(self, site: Site, tests: Sequence[str], work: Callable[[Path], int]) -> None:
        """Asks in a fork whether the tests notice, and adds what became of the mutant."""
        found = self.scratch / "running"
        spent = sum(map(self.known.time, tests))
        limit = 120 + 20 * spent  # of the wall clock: others work here too
        code = planting.fork(functools.partial(work, found), self.scratch / "log", limit)
        if code:
            self.result.kills[found.read_text()] += 1
        about = f"{len(tests)} tests, {spent:.1f} s"
        self.result.add(site, "killed" if code not in (0, pytest.ExitCode.NO_TESTS_COLLECTED) else "survived", about)

    def tests(self, site: Site, imported: bool, there: Collection[str]) -> list[str]:
        """Of those that are there; new ones may run any line."""
        new = set(there) - set(self.known.seconds)
        chosen = (self.known.tests(site, imported) & set(there)) | new
        return within(chosen, self.known, self.result, self.seconds)


def in_place(sites: Sequence[Site], planting_: Planting, items: dict[str, pytest.Item]) -> None:
    """Plants mutants of functions, each in a fork of this process, which has the tests collected."""
    for name in HEAVY.split():
        importlib.import_module(name)
    planting.forget()
    for file in {str(site.file) for site in sites}:
        planting.live(file)
    gc.collect()
    gc.freeze()
    until = time.monotonic() + 60 * planting_.minutes
    for site in sites:
        if time.monotonic() > until:
            break
        differ = difference(site)
        if differ is None:
            continue
        tests = planting_.tests(site, False, items)
        if not tests:
            planting_.result.add(site, "unreached")
            continue

        def work(found: Path, site: Site = site, differ: Any = differ, tests: Sequence[str] = tests) -> int:
            planting.plant(str(site.file), differ)
            return planting.tried([items[test] for test in tests], planting_.known.seconds, found)

        planting_.settle(site, tests, work)


def difference(site: Site) -> dict[tuple[str, int], Any] | None:
    source = site.file.read_text()
    return planting.changed(*(mutated(source, str(site.file), number) for number in (None, site.mutant.number)))


def imported(sites: Sequence[Site], planting_: Planting) -> None:
    """Plants mutants of what runs on import, each in a fork of this process, which has all but the package."""
    for name in HEAVY.split():
        importlib.import_module(name)
    if any(name.startswith("seqprune") for name in sys.modules):
        raise SystemExit("the package was imported too early: what is mutated must be imported after it")
    until = time.monotonic() + 6 * planting_.minutes
    for site in sites:
        if time.monotonic() > until:
            break
        tests = planting_.tests(site, True, planting_.known.seconds)
        if not tests or difference(site) is not None:
            continue

        def work(found: Path, site: Site = site, tests: Sequence[str] = tests) -> int:
            code = mutated(site.file.read_text(), str(site.file), site.mutant.number)
            sys.meta_path.insert(0, planting.Planted(site.file, ROOT, code))
            found.write_text("imported")

            def run(items: dict[str, pytest.Item]) -> None:
                os._exit(planting.tried(list(items.values()), planting_.known.seconds, found))

            planting.collect(tests, planting_.scratch / "base", run)
            return 1

        planting_.settle(site, tests, work)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--minutes",
        type=float,
        default=60,
        help="of planting mutants in functions; what runs on import gets a tenth more",
    )
    parser.add_argument("--seconds", type=float, default=15, help="of tests for one mutant, the quickest first")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=SUBJECTS, help="files or patterns, from the root")
    parser.add_argument("--again", type=Path, help="an earlier result, whose survivors are planted anew")
    parser.add_argument(
        "--tests",
        nargs="*",
        default=[],
        help="files to collect and watch; with --known new tests are asked of any line",
    )
    parser.add_argument("--known", action="store_true", help="no other tests than those that were watched earlier")
    parser.add_argument("--out", type=Path, default=Path("mutations.json"), help="goes on where it was stopped")
    options = parser.parse_args()
    os.chdir(ROOT)
    sites = [
        Site(file, mutant)
        for file in sorted({file for pattern in options.only for file in ROOT.glob(pattern)})
        for mutant in mutants(file.read_text())
    ]
    result = Result(options.out, len(sites))
    with tempfile.TemporaryDirectory() as folder:
        scratch, cache = Path(folder), options.out.with_suffix(".cache")
        tests = options.tests or TESTS
        if not options.known:
            every = [file for pattern in SUBJECTS for file in ROOT.glob(pattern)]
            apart(
                lambda: planting.collect(
                    tests, scratch / "base", lambda items: planting.watch(items, every, ROOT, cache)
                )
            )
        known = read(cache) if cache.exists() else Known({}, {})
        chosen = drawn(sites, result, options)
        run = Planting(known, result, options.seconds, options.minutes, scratch)
        apart(lambda: planting.collect(tests, scratch / "base", functools.partial(in_place, chosen, run)))
        result.reread()
        rest = [site for site in chosen if site.title not in result.planted()]
        imported(rest, run)
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(f"{result}; {sum(each.ru_utime + each.ru_stime for each in spent):.0f} s of processor time")


def apart(work: Callable[[], None]) -> None:
    """Does it in a process of its own, so that this one stays without the package."""
    run = os.fork()
    if run == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            sys.stdout.flush()
            os._exit(code)
    if os.waitpid(run, 0)[1]:
        raise SystemExit("stopped")


def drawn(sites: list[Site], result: Result, options: argparse.Namespace) -> list[Site]:
    """The sites to plant, in a drawn order, without those that were planted and those that nobody can notice."""
    if options.again:
        survivors = json.loads(options.again.read_text())
        again = {*survivors["survived"], *survivors["unreached"]}
        sites = [site for site in sites if site.title in again]
    equivalent = yaml.safe_load((ROOT / "scripts" / "equivalent.yaml").read_text()) or {}
    known = {text for texts in equivalent.values() for text in texts}
    done = result.planted()
    return [site for site in stratified(sites, options.seed) if site.title not in known | done]


if __name__ == "__main__":
    main()
