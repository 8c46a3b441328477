"""The action and the workflow for other repositories name what is there, and take nothing for a command."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from seqprune.testing.contracts import CONTRACTS
from seqprune.testing.plugin import SHORT, VALUES

ROOT = Path(__file__).parents[2]
ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
FILE = ROOT / ".github" / "workflows" / "conformance.yml"
WORKFLOW: dict[Any, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
COMMANDS = [step["run"] for step in ACTION["runs"]["steps"] if "run" in step]


def test_every_option_that_the_action_gives_is_one() -> None:
    given = {name for command in COMMANDS for name in re.findall(r"--pruning-([\w-]+)=", command)}
    assert given >= {"model", "data", "baseline", "min-share", "max-time", "page", "json"}
    assert given <= {*VALUES}


def test_every_input_is_used_and_none_becomes_a_command() -> None:
    """A file's name in a command is run as one."""
    used = {name for step in ACTION["runs"]["steps"] for name in re.findall(r"inputs\.([\w-]+)", str(step))}
    assert used == {*ACTION["inputs"]}
    assert not [command for command in COMMANDS if "${{" in command]


def test_the_workflow_hands_on_what_the_action_takes() -> None:
    steps = WORKFLOW["jobs"]["conformance"]["steps"]
    handed = next(step["with"] for step in steps if step["uses"] == "./.seqprune")
    assert {*handed} <= {*ACTION["inputs"]}
    taken = WORKFLOW[True]["workflow_call"]["inputs"]  # YAML 1.1 reads `on` as true
    for value in handed.values():
        assert re.fullmatch(r"\$\{\{ inputs\.([\w-]+) \}\}", value)[1] in taken  # type: ignore[index]
    assert WORKFLOW["permissions"] == {"contents": "read"}


def test_the_wheel_has_the_plugin_under_its_name() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert '[project.entry-points.pytest11]\nseqprune = "seqprune.testing.plugin"' in project
    assert "testing = [" in project


def test_the_page_names_every_contract_and_only_options_that_are_there() -> None:
    page = (ROOT / "docs" / "conformance.md").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in page for name in CONTRACTS)
    assert "fourteen contracts" in readme
    assert len(CONTRACTS) == 14
    options = set(re.findall(r"--pruning-([\w-]+\w)", page + readme))
    assert options <= {*VALUES}
    before = page.partition("<!-- matrix -->")[0]
    short = set(re.findall(r"(?<![\w-])--(?!pruning)([\w-]+\w)", before)) - {"update-baseline", "pyargs"}
    assert short <= {*SHORT}
