"""What a machine fails at: one line, exit code 1, and everything up to then is there to go on from."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import seqprune.yolo.task.task
from seqprune.cli.failures import said, why_failed
from seqprune.cli.interrupts import Interrupted
from seqprune.engine.state import State
from seqprune.errors import InputError, ModelError
from seqprune.yolo.files.load import load
from seqprune.yolo.train.epochs import Epochs, KeepsEpochs

MODEL = "yolov8n.yaml"
QUICK = ("--match", "all", "--imgsz", "64", "--keep", "0.5", "--layers", 2, "--cache-bytes", 0)
TRAINED = ("--finetune", 3, "--batch", 4)
FULL = OSError(errno.ENOSPC, "No space left on device")
Failing = Callable[..., None]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load(folder / "weights" / "pruned.pt").model.state_dict()


def same(folder: Path, other: Path) -> bool:
    ours, theirs = weights(folder), weights(other)
    plans = [(path / "plan.json").read_bytes() for path in (folder, other)]
    return plans[0] == plans[1] and all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


@pytest.fixture(scope="module")
def images(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy that can be lost."""
    return shutil.copytree(data.parent, tmp_path_factory.mktemp("images") / "data") / data.name


@pytest.fixture(scope="module")
def wholes(process: Any, images: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """The same runs without a failure: untrained, and trained."""
    found = {}
    for trains in (False, True):
        project = tmp_path_factory.mktemp("whole")
        given = TRAINED if trains else ("--no-val",)
        code, _, err = process("prune", MODEL, "--data", images, *QUICK, *given, "--project", project)
        assert code == 0, err
        found[trains] = project / "yolov8n"
    return found


def failing(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, nth: int, error: BaseException) -> None:
    """From its ``nth`` call on, counted from 0, something fails."""
    real, calls = getattr(owner, name), iter(range(1 << 30))

    def fails(*args: Any, **options: Any) -> Any:
        if next(calls) >= nth:
            raise error
        return real(*args, **options)

    monkeypatch.setattr(owner, name, fails)


def check_failed(done: Any, folder: Path, said: str) -> None:
    assert done.code == 1, done.err
    assert re.fullmatch(r"error: [^\n]+\n", done.err), done.err
    assert said in done.err
    assert f"`seqprune prune --resume {folder}` goes on from here" in done.err


@pytest.mark.parametrize(
    ("owner", "name", "nth", "error", "said"),
    [
        (os, "fsync", 10, FULL, "No space left on device"),
        (
            torch,
            "save",
            0,
            RuntimeError("[enforce fail at inline_container.cc:603] unexpected pos 64 vs 0"),
            "unexpected",
        ),
        (State, "write_tensors", 1, MemoryError(), "memory ran out (MemoryError)"),
        (State, "write_tensors", 1, RuntimeError("DefaultCPUAllocator: can't allocate memory"), "memory ran out"),
        (
            State,
            "write_tensors",
            1,
            RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly"),
            "reads images died",
        ),
    ],
    ids=["full disk", "full disk as torch says it", "memory", "memory as torch says it", "a worker"],
)
def test_a_failure_is_one_line_and_the_run_goes_on(
    run: Any,
    images: Path,
    tmp_path: Path,
    wholes: dict[bool, Path],
    monkeypatch: pytest.MonkeyPatch,
    owner: Any,
    name: str,
    nth: int,
    error: BaseException,
    said: str,
) -> None:
    """A full disk in the last minute of an hour's run took all of it."""
    folder = tmp_path / "yolov8n"
    with monkeypatch.context() as patched:
        failing(patched, owner, name, nth, error)
        done = run("prune", MODEL, "--data", images, *QUICK, "--no-val", "--project", tmp_path)
    check_failed(done, folder, said)
    assert run("prune", "--resume", folder).code == 0
    assert same(folder, wholes[False])


def test_images_that_are_lost_midway(
    run: Any, images: Path, tmp_path: Path, wholes: dict[bool, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A share that was unmounted was taken for a wrong argument."""
    write, away = State.write_tensors, images.parent / "away"

    def loses(self: State, *args: Any) -> None:
        write(self, *args)
        (images.parent / "images" / "train").rename(away)

    folder = tmp_path / "yolov8n"
    with monkeypatch.context() as patched:
        patched.setattr(State, "write_tensors", loses)
        done = run("prune", MODEL, "--data", images, *QUICK, "--no-val", "--project", tmp_path)
    check_failed(done, folder, "cannot be decoded")
    gone = run("prune", "--resume", folder)
    assert gone.code == 2
    assert (folder / "run.json").exists()
    away.rename(images.parent / "images" / "train")
    assert run("prune", "--resume", folder).code == 0
    assert same(folder, wholes[False])


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_a_memory_limit(process: Any, run: Any, images: Path, tmp_path: Path, wholes: dict[bool, Path]) -> None:
    before = """
import resource, threading
from seqprune.engine.state import State
write = State.write_tensors
def limited(self, *args):
    write(self, *args)
    size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + (1 << 20), resource.RLIM_INFINITY))
    threading.stack_size(64 << 20)  # one that no thread left behind: a thread that starts without memory never says so
State.write_tensors = limited
"""
    folder = tmp_path / "yolov8n"
    given = ("prune", MODEL, "--data", images, *QUICK, "--no-val", "--project", tmp_path)
    check_failed(process(*given, before=before), folder, "memory")
    assert run("prune", "--resume", folder).code == 0
    assert same(folder, wholes[False])


def test_a_measurement_that_fails_at_the_end_keeps_what_was_trained(
    run: Any, images: Path, tmp_path: Path, wholes: dict[bool, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failing "measure after" threw the fine-tuned network away."""
    folder = tmp_path / "yolov8n"
    with monkeypatch.context() as patched:
        failing(patched, seqprune.yolo.task.task, "validate", 1, ModelError("the model cannot be validated: why"))
        done = run("prune", MODEL, "--data", images, *QUICK, *TRAINED, "--project", tmp_path)
    check_failed(done, folder, "what was pruned cannot be measured: the model cannot be validated: why")
    assert same(folder, wholes[True])
    assert (folder / "report.html").exists()
    failing(monkeypatch, KeepsEpochs, "_begin_epoch", 0, AssertionError("it was trained"))
    assert run("prune", "--resume", folder).code == 0
    assert same(folder, wholes[True])
    assert not (folder / "state").exists()


def test_a_training_that_fails_goes_on_from_its_last_epoch(
    run: Any, images: Path, tmp_path: Path, wholes: dict[bool, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "yolov8n"
    with monkeypatch.context() as patched:
        failing(patched, KeepsEpochs, "_begin_epoch", 2, RuntimeError("DataLoader worker (pid(s) 7) exited"))
        done = run("prune", MODEL, "--data", images, *QUICK, *TRAINED, "--project", tmp_path)
    check_failed(done, folder, "training failed: DataLoader worker (pid(s) 7) exited")
    assert (folder / "weights" / "pruned.pt").exists()
    failing(monkeypatch, KeepsEpochs, "_begin_epoch", 1, AssertionError("it begins anew"))
    assert run("prune", "--resume", folder).code == 0
    assert same(folder, wholes[True])


def test_a_training_that_is_interrupted_goes_on_from_its_last_epoch(
    run: Any, images: Path, tmp_path: Path, wholes: dict[bool, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "yolov8n"
    with monkeypatch.context() as patched:
        failing(patched, Epochs, "write", 1, Interrupted())
        done = run("prune", MODEL, "--data", images, *QUICK, *TRAINED, "--project", tmp_path)
    assert done.code == 130
    assert run("prune", "--resume", folder).code == 0
    assert same(folder, wholes[True])


def test_a_training_between_the_layers_goes_on_too(
    run: Any, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ("prune", MODEL, "--data", images, *QUICK, "--no-val", "--finetune-step", 2, "--batch", 4)
    assert run(*given, "--project", tmp_path / "whole").code == 0
    folder = tmp_path / "ended" / "yolov8n"
    for number in range(2):  # in the training after the first layer, and, with the first kept, after the second
        with monkeypatch.context() as patched:
            failing(patched, KeepsEpochs, "_begin_epoch", 1 + number, Interrupted())
            start = ("prune", "--resume", folder) if number else (*given, "--project", folder.parent)
            assert run(*start).code == 130
    assert run("prune", "--resume", folder).code == 0
    assert same(folder, tmp_path / "whole" / "yolov8n")


def test_a_bug_is_no_failure_of_the_machine() -> None:
    assert not why_failed(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert why_failed(OSError(5, "Input/output error", "f.jpg")).count("\n") == 0


@pytest.mark.parametrize(("name", "package"), [("PIL.Image", "pillow"), ("ultralytics", "ultralytics")])
def test_a_package_that_is_not_there_is_named(name: str, package: str) -> None:
    """It was said to be a bug."""
    with pytest.raises(InputError, match=f"not installed: pip install {package}$"), said():
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    with pytest.raises(ModuleNotFoundError), said():
        raise ModuleNotFoundError("No module named 'seqprune.nowhere'", name="seqprune.nowhere")
