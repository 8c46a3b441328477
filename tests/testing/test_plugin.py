"""The plugin: quiet where it is not used, and what a repository asserts on its model with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from importlib import metadata
from pathlib import Path
from shutil import copyfile
from typing import Any

import pytest
import torch
from torch import nn

from seqprune.demo import weights_path, write_scenes
from seqprune.testing.baseline import worse
from seqprune.testing.plugin import SHORT, VALUES
from seqprune.yolo.files.load import load
from seqprune.yolo.files.save import save_pt

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PLUGIN = "seqprune.testing.plugin"
INSTALLED = any(entry.value == PLUGIN for entry in metadata.entry_points(group="pytest11"))
QUICK = "--pruning-models=planted:tiny"


def run(folder: Path, *arguments: str, fails: int = 0, **environment: str) -> str:
    """What ``pytest`` says in a folder, in a process of its own, as with an installed wheel."""
    plugin = () if INSTALLED else ("-p", PLUGIN)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *plugin, *arguments]
    paths = os.pathsep.join([str(HERE)] if INSTALLED else [str(HERE), str(ROOT)])  # a wheel is not shadowed
    settings = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "GITHUB_"))} | environment
    done = subprocess.run(  # noqa: S603
        command, cwd=folder, capture_output=True, text=True, check=False, env={**settings, "PYTHONPATH": paths}
    )
    assert done.returncode == fails, done.stdout + done.stderr
    return done.stdout + done.stderr


def repository(folder: Path, tests: str, conftest: str = "", ini: str = "[pytest]\n") -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in (("test_it.py", tests), ("conftest.py", conftest), ("pytest.ini", ini)):
        (folder / name).write_text(text)
    return folder


def test_importing_the_plugin_imports_nothing_else_and_takes_no_time() -> None:
    """It is loaded in every run of pytest wherever seqprune is installed."""
    code = f"""
import sys, time, pytest, importlib.metadata
before, start = set(sys.modules), time.process_time()
import {PLUGIN}
print(round(time.process_time() - start, 3), *sorted({{n.split('.')[0] for n in set(sys.modules) - before}}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    seconds, *modules = done.stdout.split()
    assert modules == ["seqprune"]
    assert float(seconds) < 0.1


def test_a_suite_that_has_nothing_to_do_with_pruning_sees_nothing_of_it(tmp_path: Path) -> None:
    """Its own options of our short names stay its own, and nothing heavy is imported."""
    conftest = """
def pytest_addoption(parser):
    for name in ("--model", "--data", "--baseline", "--runtime", "--models"):
        parser.addoption(name, default="theirs")
"""
    tests = """
import sys

def test_options(pytestconfig):
    assert pytestconfig.getoption("--model") == "mine"
    assert pytestconfig.getoption("--data") == "theirs"
    assert pytestconfig.getoption("pruning_model") is None

def test_nothing_heavy():
    assert not {"torch", "numpy", "ultralytics", "hypothesis"} & {*sys.modules} - {"hypothesis"}
"""
    said = run(repository(tmp_path / "theirs", tests, conftest), "--model", "mine", "-q")
    assert "2 passed" in said
    assert "pruning:" not in said


def test_no_option_is_registered_without_the_prefix() -> None:
    """A plugin that registers a name twice ends every run with an error before a test was collected."""
    from _pytest.config import get_config

    config = get_config([], plugins=())
    if not config.pluginmanager.has_plugin(PLUGIN):
        config.pluginmanager.import_plugin(PLUGIN)
    group = next(g for g in config._parser._groups if g.name == "pruning")
    names = [name for option in group.options for name in option.names()]
    assert len(names) == len(VALUES) + 1
    assert all(name.startswith("--pruning-") for name in names)
    assert {*SHORT} <= {*VALUES}


def test_a_case_is_a_test_with_its_names_and_its_reason(tmp_path: Path) -> None:
    folder = repository(tmp_path / "r", "def test_contracts(pruning_case):\n    pruning_case()\n")
    arguments = ("--pruner=planted:reorders", QUICK, "-k", "channels or values or alone")
    said = run(folder, *arguments, "--junitxml=j.xml", "--pruning-json=j.json", "--pruning-page=p.html", "-rs", fails=1)
    assert "planted:reorders-planted:tiny-channels" not in said  # it passed
    assert "values fails: outputs differ by" in said
    assert "pruning: pruner planted:reorders, models planted:tiny" in said
    cases = json.loads((folder / "j.json").read_text())["cases"]
    assert {case["contract"]: case["state"] for case in cases} == {
        "channels": "holds",
        "values": "fails",
        "alone": "fails",
    }
    root = ET.parse(folder / "j.xml").getroot()  # noqa: S314
    assert [p.get("name") for p in root.iter("property")] == ["pruning case"] * 3
    assert "<table>" in (folder / "p.html").read_text()


@pytest.mark.long
def test_results_come_home_from_several_processes_once_and_github_shows_them(tmp_path: Path) -> None:
    pytest.importorskip("xdist")
    folder = repository(tmp_path / "r", "def test_contracts(pruning_case):\n    pruning_case()\n")
    (folder / "step.md").write_text("before\n")
    arguments = (QUICK, "-k", "returns or smaller or channels", "--pruning-summary=s.md", "--pruning-json=j.json")
    run(folder, *arguments, "-n", "2", GITHUB_STEP_SUMMARY=str(folder / "step.md"))
    assert len(json.loads((folder / "j.json").read_text())["cases"]) == 3
    summary = (folder / "s.md").read_text()
    assert "| planted:tiny | ✓ 3 |" in summary
    assert (folder / "step.md").read_text() == "before\n" + summary


@pytest.mark.long
def test_known_failures_carry_their_reasons_and_files_add_more(tmp_path: Path) -> None:
    folder = repository(tmp_path / "r", "def test_contracts(pruning_case):\n    pruning_case()\n")
    (folder / "skips").write_text("tiny-channels  # not today\n# a comment\n")
    (folder / "xfails").write_text("tiny-smaller # ours to mend\n")
    arguments = ("--pruner=naive", QUICK, "-k", "channels or batchnorm or values")
    said = run(folder, *arguments, "--skips-file=skips", "-rsx")
    assert "not today" in said
    assert "readers were narrowed, producers were not" in said
    assert "blocked: rests on runs" in said
    arguments = ("--pruner=planted:exits", QUICK, "-k", "smaller", "--pruning-xfails-file=xfails", "-rxs")
    assert "1 skipped" in run(folder, *arguments)  # blocked: `returns` says it


@pytest.mark.long
def test_nothing_under_test_is_an_error_and_not_a_pass(tmp_path: Path) -> None:
    folder = repository(tmp_path / "r", "def test_contracts(pruning_case):\n    pruning_case()\n")
    assert "give --model best.pt, or --pruner NAME --models yolov8n" in run(folder, fails=2)
    assert "there is no pruner 'nobody'" in run(folder, "--pruner=nobody", QUICK, fails=2)


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository in ``examples/``, with the weights and images that its ``prepare.py`` writes."""
    folder = tmp_path_factory.mktemp("newcomer")
    for name in ("pytest.ini", "test_model.py"):
        copyfile(ROOT / "examples" / "conformance" / name, folder / name)
    copyfile(weights_path(), folder / "best.pt")
    write_scenes(folder / "digits", train=8, val=8, size=128, seed=0)
    return folder


def half_pruned(path: Path) -> None:
    """A file in which one layer was narrowed and the layer that it reads was not: the predecessor's."""
    found = load(weights_path())
    reader: Any = found.model.get_submodule("model.6.cv1.conv")
    reader.weight = nn.Parameter(reader.weight.detach()[:, ::2].clone())
    reader.in_channels = reader.weight.shape[1]
    save_pt(found.model, path, names=found.names)


SOME = ("-k", "returns or runs or values or plain or accurate")


@pytest.mark.slow
def test_a_newcomers_repository_passes(newcomer: Path) -> None:
    assert len((ROOT / "examples" / "conformance" / "test_model.py").read_text().split("\n\n\n")) == 3
    assert "5 passed" in run(newcomer, *SOME, "-q")


@pytest.mark.slow
def test_and_fails_on_a_file_that_was_pruned_by_halves(newcomer: Path, tmp_path: Path) -> None:
    """``expected input … to have k channels, but got n channels instead``, found before it is deployed."""
    half_pruned(tmp_path / "half.pt")
    said = run(newcomer, *SOME, "--model", str(tmp_path / "half.pt"), "-q", fails=1)
    assert "passed" not in said.splitlines()[-1]
    assert "channels" in said
    assert "Traceback" not in said


@pytest.mark.long
def test_the_suite_runs_from_any_folder_and_against_a_stored_baseline(newcomer: Path, tmp_path: Path) -> None:
    arguments = ["--pyargs", "seqprune.testing", f"--model={newcomer / 'best.pt'}", "--pruning-imgsz=64", "-q"]
    arguments += [f"--data={newcomer / 'digits' / 'data.yaml'}", "--min-share=0.5", "--baseline=kept"]
    chosen = ("-k", "accuracy or worse or returns")
    run(tmp_path, *arguments, *chosen, "-rs", fails=1)  # there is none yet
    assert "3 passed" in run(tmp_path, *arguments, *chosen, "--update-baseline")
    kept = tmp_path / "kept" / "pruning-baseline.json"
    figures = json.loads(kept.read_text())
    kept.write_text(json.dumps(figures | {"accuracy": figures["accuracy"] + 0.1}))
    said = run(tmp_path, *arguments, *chosen, fails=1)
    assert f"{figures['accuracy'] + 0.1:.4f} before" in said


FIGURES = {
    "parameters": 100,
    "imgsz": 64,
    "runtime": "torch",
    "time_share": 0.8,
    "outputs": [1.0, 2.0],
    "accuracy": 0.5,
}


@pytest.mark.parametrize(
    ("now", "said"),
    [
        ({}, ""),
        ({"parameters": 90, "accuracy": 0.6, "time_share": 0.4}, ""),
        ({"parameters": 101}, "101 parameters, 100 before"),
        ({"accuracy": 0.494}, "accuracy 0.4940, 0.5000 before"),
        ({"time_share": 1.1}, "1.10 of the unpruned network's time, 0.80 before"),
        ({"time_share": 1.1, "runtime": "openvino"}, ""),
        ({"outputs": [1.0, 2.1]}, "outputs for the same image differ by 5.0e-02"),
        ({"outputs": [float("nan"), 2.0]}, "outputs for the same image differ by nan"),
    ],
)
def test_what_got_worse_is_said_with_its_figures(now: dict[str, Any], said: str) -> None:
    assert "; ".join(worse(FIGURES, FIGURES | now)).startswith(said)
    assert bool(worse(FIGURES, FIGURES | now)) == bool(said)
    assert torch.__version__
