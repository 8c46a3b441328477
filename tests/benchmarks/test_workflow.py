"""What the workflow names is there: a tox environment or a module that is renamed fails here, not on the next push."""

from __future__ import annotations

import configparser
import importlib.util
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.compare import THRESHOLD

ROOT = Path(__file__).parents[2]
WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"
CONTENT: dict[Any, Any] = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))
JOBS: dict[str, dict[str, Any]] = CONTENT["jobs"]


def steps(job: dict[str, Any], key: str) -> list[str]:
    return [step[key] for step in job["steps"] if key in step]


def commands() -> Iterator[str]:
    """Every `run` of every job, once for each way through its matrix."""
    for job in JOBS.values():
        matrix = job.get("strategy", {}).get("matrix", {})
        for values in itertools.product(*matrix.values()):
            for command in steps(job, "run"):
                for name, value in zip(matrix, values, strict=True):
                    command = command.replace(f"${{{{ matrix.{name} }}}}", str(value))
                yield command


def environments(text: str) -> set[str]:
    """`a{1,2}, b` is a1, a2 and b."""
    found = set()
    for entry in re.findall(r"[^,\s{}]+(?:\{[^}]*\})?", text):
        stem, _, factors = entry.partition("{")
        found |= {stem + factor.strip() for factor in factors.rstrip("}").split(",")}
    return found


def tox() -> configparser.ConfigParser:
    found = configparser.ConfigParser(interpolation=None)
    found.read(ROOT / "tox.ini", encoding="utf-8")
    return found


def test_lists_of_environments_are_read_right() -> None:
    assert environments("lint, a{2.4,2.11}, b") == {"lint", "a2.4", "a2.11", "b"}


def test_it_runs_every_tox_environment_and_no_other() -> None:
    named = {name for command in commands() for name in re.findall(r"\btox -e (\S+?);?(?:\s|$)", command)}
    listed = environments(tox()["tox"]["env_list"])
    assert named - listed == set()
    assert listed - named == set()


def test_every_module_it_runs_is_there() -> None:
    named = {name for command in commands() for name in re.findall(r"python3? -m ([\w.]+)", command)}
    assert named >= {"benchmarks.compare", "benchmarks.dashboard", "benchmarks.history"}
    for name in named:
        assert importlib.util.find_spec(name) is not None, name


def test_every_file_of_ours_it_names_is_there() -> None:
    text = WORKFLOW.read_text(encoding="utf-8")
    for name in ("benchmarks/timing.py", "benchmarks/history", "pyproject.toml"):
        assert name in text
        assert (ROOT / name).exists()


def test_the_benchmarks_lie_where_it_looks_for_them() -> None:
    assert "--benchmark-json={envtmpdir}/benchmark.json" in tox()["testenv:benchmark"]["commands"]
    assert any(".tox/benchmark/tmp/benchmark.json" in command for command in commands())


def test_one_site_is_published_the_documentation_with_the_dashboard_in_it() -> None:
    """A repository has one site: the dashboard alone was published, and the documentation never."""
    run = steps(JOBS["dashboard"], "run")
    docs = "mkdocs build --strict --site-dir site"
    dashboard = "python -m benchmarks.dashboard kept --out site/dashboard"
    assert run.index(docs) < run.index(dashboard)  # mkdocs empties its folder first
    [upload] = [step for step in JOBS["dashboard"]["steps"] if "upload-pages-artifact" in step.get("uses", "")]
    assert upload["with"]["path"] == "site"


def test_its_threshold_is_the_default_one() -> None:
    named = [float(value) for command in commands() for value in re.findall(r"--threshold (\S+)", command)]
    assert named == [THRESHOLD]


def test_the_python_versions_are_supported_ones() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert (
        f'requires-python = ">={min(JOBS["tests"]["strategy"]["matrix"]["python"], key=lambda v: int(v[2:]))}"'
        in project
    )


@pytest.mark.parametrize("name", JOBS)
def test_a_job_ends_and_may_do_little(name: str) -> None:
    job = JOBS[name]
    assert job["timeout-minutes"] <= 60
    assert CONTENT["permissions"] == {"contents": "read"}
    more = {"dashboard": {"contents": "write"}, "publish": {"pages": "write", "id-token": "write"}}
    assert job.get("permissions", {}) == more.get(name, {})
    if more.get(name):
        # Only what runs on main, after the checks of a pull request, may write.
        assert "pull_request" in str(job["if"]) or job["needs"] == "dashboard"
    for action in steps(job, "uses"):
        assert action == "./" or re.fullmatch(r"actions/[\w-]+@v\d+", action)


@pytest.mark.parametrize("name", JOBS)
def test_what_an_event_says_never_becomes_a_command(name: str) -> None:
    """A branch's name in a command is run as one."""
    for command in steps(JOBS[name], "run"):
        inserted = re.findall(r"\$\{\{\s*([\w.]+)", command)
        assert all(each.startswith("matrix.") for each in inserted), inserted
