"""``seqprune prune`` ended by a signal, refused or failed: what is left, what is said, and how it goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from seqprune.cli.resuming import RUN, new_run, resumable
from seqprune.errors import InputError, SeqPruneError
from seqprune.report import result
from seqprune.yolo.files.load import load

MODEL = "yolov8n.yaml"
QUICK = ("--match", "all", "--imgsz", "64", "--keep", "0.5", "--no-val", "--layers", 2)
LIMIT = 2.0
"""Seconds from a signal to the end."""
BLOCKED = """
import pathlib, time, hashlib
from seqprune.engine.state import State
write = State.write_tensors
def blocked(self, name, *rest):
    write(self, name, *rest)
    pathlib.Path({marker!r}).touch()
    {long}
State.write_tensors = blocked
"""
SLEEPS, WORKS = "time.sleep(600)", "hashlib.pbkdf2_hmac('sha256', b'1', b'1', 10**9)"


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load(folder / "weights" / "pruned.pt").model.state_dict()


@pytest.fixture(scope="module")
def whole(process: Any, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, left alone."""
    project = tmp_path_factory.mktemp("whole")
    code, _, err = process("prune", MODEL, "--data", data, *QUICK, "--project", project)
    assert code == 0, err
    return project / "yolov8n"


def check_resumed(run: Any, folder: Path, whole: Path) -> None:
    code, out, err = run("prune", "--resume", folder)
    assert (code, err) == (0, "")
    assert f"results in {folder}" in out
    assert (folder / "plan.json").read_bytes() == (whole / "plan.json").read_bytes()
    ours, theirs = weights(folder), weights(whole)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    again = run("prune", "--resume", folder)
    assert again.code == 2
    assert "this run is finished, nothing is left to resume; see " in again.err


@pytest.mark.parametrize(
    ("number", "code", "long"),
    [
        (signal.SIGTERM, 143, SLEEPS),
        pytest.param(signal.SIGHUP, 129, SLEEPS, marks=pytest.mark.long),
        (signal.SIGINT, 130, SLEEPS),
        (signal.SIGTERM, 143, WORKS),
    ],
    ids=["SIGTERM", "SIGHUP", "Ctrl-C", "SIGTERM in a long operation"],
)
def test_a_signal_ends_a_run_within_two_seconds_and_it_goes_on(
    run: Any, data: Path, tmp_path: Path, whole: Path, number: int, code: int, long: str
) -> None:
    """A closed terminal took an hour's work with it."""
    marker, project = tmp_path / "marker", tmp_path / "runs"
    script = f"{BLOCKED.format(marker=str(marker), long=long)}\nfrom seqprune.cli.app import main\nmain()"
    command = [sys.executable, "-c", script, "prune", MODEL, "--data", data, *QUICK, "--project", project]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    child = subprocess.Popen(  # noqa: S603
        [str(part) for part in command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
    )
    try:
        while not marker.exists():
            assert child.poll() is None
            time.sleep(0.02)
        start = time.monotonic()
        child.send_signal(number)
        _, err = child.communicate(timeout=60)
    finally:
        child.kill()
    seconds = time.monotonic() - start
    assert child.returncode == code
    assert seconds < LIMIT
    folder = project / "yolov8n"
    assert f"`seqprune prune --resume {folder}` goes on from here\n" in err
    assert "Traceback" not in err
    check_resumed(run, folder, whole)


def test_what_is_refused_leaves_no_folder_above_it_either(run: Any, data: Path, tmp_path: Path) -> None:
    """Empty folders of projects were left for every misspelt layer."""
    project = tmp_path / "a" / "b" / "runs"
    code, _, err = run("prune", MODEL, "--data", data, *QUICK[:-2], "--layer", "model.5.cnov", "--project", project)
    assert code == 2, err
    assert not list(tmp_path.iterdir())


def test_what_is_refused_leaves_the_folders_that_were_there(run: Any, data: Path, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    code, _, _ = run("prune", MODEL, "--data", data, *QUICK, "--blocks", "1-40", "--project", tmp_path / "a" / "runs")
    assert code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert not list((tmp_path / "a").iterdir())


def test_a_page_that_cannot_be_made_takes_no_run_with_it(
    run: Any, data: Path, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the end of 43 minutes the page's templates were gone, which counted as input: so was the run."""

    def fail(*_given: object) -> None:
        raise InputError("no template")

    with monkeypatch.context() as patch:
        patch.setattr(result, "write_html", fail)
        code, _, err = run("prune", MODEL, "--data", data, *QUICK, "--project", tmp_path)
    folder = tmp_path / "yolov8n"
    assert code == 1
    assert f"the report cannot be written to {folder} (no template)" in err
    assert f"`seqprune prune --resume {folder}` goes on from here\n" in err
    check_resumed(run, folder, whole)


def test_what_was_saved_is_not_removed_whatever_is_refused_after_it(tmp_path: Path) -> None:
    folder = tmp_path / "run"

    def save_then_refuse() -> None:
        for file in (folder / "state" / "moments.npz", folder / "weights" / "pruned.pt"):
            file.parent.mkdir()
            file.touch()
        raise InputError("too late")

    with pytest.raises(InputError), new_run(folder, {"model": MODEL}):
        save_then_refuse()
    assert (folder / "weights" / "pruned.pt").exists()
    assert (folder / RUN).exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "no such file"),
        ("{", "give the folder of an unfinished run"),
        ("[]", "is none that `seqprune prune` wrote"),
        ('{"model": "yolov8n.yaml"}', "is none that `seqprune prune` wrote"),
    ],
)
def test_what_is_no_run_is_refused(run: Any, tmp_path: Path, text: str | None, said: str) -> None:
    if text is not None:
        (tmp_path / "run.json").write_text(text)
    code, _, err = run("prune", "--resume", tmp_path)
    assert code == 2
    assert said in err
    assert len(list(tmp_path.iterdir())) == (text is not None)


def test_what_a_run_was_asked_for_is_not_asked_twice(run: Any, tmp_path: Path) -> None:
    code, _, err = run("prune", MODEL, "--resume", tmp_path)
    assert code == 2
    assert "leave them out" in err


def test_two_processes_do_not_work_in_one_folder(tmp_path: Path) -> None:
    """Both wrote their findings over each other's."""
    (tmp_path / RUN).write_text("{}")
    with resumable("prune", tmp_path):
        before = sorted(tmp_path.iterdir())
        with (
            pytest.raises(InputError, match=r"another process works in it; wait until it ends"),
            resumable("prune", tmp_path),
        ):
            pytest.fail("nothing is done there")
        assert sorted(tmp_path.iterdir()) == before
    with pytest.raises(SeqPruneError, match=RUN), resumable("prune", tmp_path):
        pytest.fail("it is finished")
