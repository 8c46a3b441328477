"""The pytest plugin: options, markers, fixtures. It imports nothing but pytest until one of them is used.

Options are ``--pruning-model`` and so on. ``--model`` does as well, where neither a plugin nor a ``conftest.py`` of the
repository has an option of that name: theirs stays theirs.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from seqprune.testing.session import PruningReport

# name -> what it is; a value each, in the ini file too as pruning_name
VALUES = {
    "model": "network under test: weights (.pt, .safetensors), a model YAML, or package.module:function that returns "
    "(module, example inputs)",
    "unpruned": "the network that --model was pruned from; shares are of this one's accuracy and time",
    "data": "data YAML (or folder, for classifiers) that accuracy is measured on",
    "runtime": "where it runs and time is measured: torch, onnxruntime, openvino, ncnn, tensorrt",
    "imgsz": "side in pixels of the images (what the model says; else 640, or 224 for classifiers)",
    "baseline": "folder of stored figures that the model must not fall behind",
    "min-share": "least share of the unpruned network's accuracy, such as 0.95",
    "max-time": "greatest share of its time, such as 0.9",
    "pruner": "pruners under test, with commas between (seqprune)",
    "models": "networks that they are tried on, with commas between: yolov8n,timm:resnet18",
    "target": "what the model is pruned to where no --unpruned is given (params=0.9)",
    "seconds": "of processor time for each process (120)",
    "memory": "gigabytes for each process (8)",
    "skips-file": "lines of test ids, or parts of them, that are skipped; # begins the reason",
    "xfails-file": "the same, expected to fail",
    "summary": "Markdown file that the results are written to ($GITHUB_STEP_SUMMARY is appended to)",
    "json": "JSON file of results with their parameters",
    "page": "HTML file of results",
}
SHORT = tuple("model data runtime baseline min-share max-time pruner models skips-file xfails-file".split())
"""Those that go without the prefix, and ``--update-baseline``."""
PATHS = ("data", "baseline", "unpruned", "skips-file", "xfails-file", "summary", "json", "page")
PROPERTY = "pruning"
"""The first word of what a test reports in ``user_properties``: JUnit has them, and xdist brings them home."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options and the lines of the ini file."""
    group = parser.getgroup("pruning", "conformance of pruned networks (seqprune)")
    for name, about in VALUES.items():
        said = f"{about}; --{name} too" if name in SHORT else about
        group.addoption(f"--pruning-{name}", dest=_dest(name), metavar=name.upper(), default=None, help=said)
        parser.addini(f"pruning_{name.replace('-', '_')}", about, default=None)
    group.addoption(
        "--pruning-update-baseline",
        dest="pruning_update_baseline",
        action="store_true",
        help="write the figures into --baseline in place of comparing with them; --update-baseline too",
    )


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(early_config: pytest.Config, parser: pytest.Parser, args: list[str]) -> Any:
    """Short names, where nobody else took them: asked after the repository's own ``conftest.py`` was read."""
    found = yield
    short = {f"--{name}": f"--pruning-{name}" for name in (*SHORT, "update-baseline")}
    if any(argument.partition("=")[0] in short for argument in args):
        _, unknown = parser.parse_known_and_unknown_args(list(args))
        nobodys = {argument.partition("=")[0] for argument in unknown} & {*short}
        for place, argument in enumerate(args):
            name, equals, value = argument.partition("=")
            if name in nobodys:
                args[place] = short[name] + equals + value
    return found


def pytest_configure(config: pytest.Config) -> None:
    """Markers, and who collects the results."""
    config.addinivalue_line("markers", "pruning: about a pruned network, or about a pruner")
    config.addinivalue_line("markers", "regression: against figures that were stored")
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Collector(config), "seqprune-collector")


def pytest_report_header(config: pytest.Config) -> list[str]:
    """What is under test."""
    asked = {name: setting(config, name) for name in ("model", "unpruned", "pruner", "models", "data", "runtime")}
    said = ", ".join(f"{name} {value}" for name, value in asked.items() if value)
    return [f"pruning: {said}"] if said else []


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A case for each pruner, network and contract."""
    if "pruning_case" in metafunc.fixturenames:
        from seqprune.testing.session import cases

        found = cases(metafunc.config)
        metafunc.parametrize("pruning_case", found, indirect=True, ids=[str(p.values[0]) for p in found])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skips and expected failures by file."""
    for name, mark in (("skips-file", pytest.mark.skip), ("xfails-file", pytest.mark.xfail)):
        file = setting(config, name)
        if not file:
            continue
        for line in Path(file).read_text(encoding="utf-8").splitlines():
            wanted, _, reason = (part.strip() for part in line.partition("#"))
            if wanted:
                for item in items:
                    if wanted in item.nodeid:
                        item.add_marker(mark(reason=reason or f"in {file}"))


@pytest.fixture
def pruning_case(request: pytest.FixtureRequest) -> Any:
    """A contract of a pruner on a network, run in a process of its own when it is called."""
    from seqprune.testing.session import PruningCase

    return PruningCase(request.param, request.config, request.node)


@pytest.fixture(scope="session")
def pruning_session(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> PruningReport:
    """The networks under test and their figures, each made once."""
    from seqprune.testing.session import PruningReport

    return PruningReport.of(request.config, tmp_path_factory.mktemp("pruning"))


@pytest.fixture(scope="session")
def unpruned(pruning_session: PruningReport) -> nn.Module:
    """The network before pruning: that of --unpruned, or --model itself."""
    return pruning_session.unpruned


@pytest.fixture(scope="session")
def pruned(pruning_session: PruningReport) -> nn.Module:
    """The network after pruning: that of --model where --unpruned is given, what seqprune makes of it otherwise."""
    return pruning_session.pruned


@pytest.fixture
def pruning_report(pruning_session: PruningReport, request: pytest.FixtureRequest) -> Iterator[PruningReport]:
    """Sizes, time and accuracy of both; what was measured meanwhile is in the summary."""
    yield pruning_session
    request.node.user_properties.append((f"{PROPERTY} figures", pruning_session.said()))


class Collector:
    """Brings together what tests report, wherever they ran, and writes it at the end."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.cases: list[dict[str, Any]] = []
        self.figures: dict[str, Any] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for name, value in report.user_properties:
            if name == f"{PROPERTY} case" and report.when == "call" and isinstance(value, dict):
                self.cases.append(value)
            elif name == f"{PROPERTY} figures" and report.when == "teardown" and isinstance(value, dict):
                self.figures.update(value)

    def pytest_sessionfinish(self) -> None:
        if self.cases or self.figures:
            from seqprune.testing.written import write

            files = {name: setting(self.config, name) for name in ("summary", "json", "page")}
            write(self.cases, self.figures, files, os.environ.get("GITHUB_STEP_SUMMARY"))


def setting(config: pytest.Config, name: str) -> str | None:
    """What was said of an option, on the command line or in the ini file; paths of the latter lie beside it."""
    given = config.getoption(_dest(name), None)
    if given is not None:
        return str(given)
    kept = config.getini(f"pruning_{name.replace('-', '_')}")
    if not kept:
        return None
    if name in PATHS or (name == "model" and Path(kept).suffix):
        beside = (config.inipath.parent if config.inipath else config.rootpath) / str(kept)
        return str(beside) if beside.exists() or name not in ("data", "unpruned", "model") else str(kept)
    return str(kept)


def _dest(name: str) -> str:
    return f"pruning_{name.replace('-', '_')}"
