"""No work is lost: a run that is killed at any moment goes on to the same bits, and a folder holds one run."""

from __future__ import annotations

import math
import random
import shutil
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from killed import ACCURATE, LATENCY, SEED, Network, batches, forked, outcome, same, work
from torch import nn

from seqprune.engine import state as states
from seqprune.engine.state import State
from seqprune.errors import InputError, SeqPruneError
from seqprune.run import prune

KILLS = 15
"""Of each preset."""
PRESETS = pytest.mark.parametrize("options", [SEED, ACCURATE], ids=["seed", "accurate"])


def start(folder: Path, options: dict[str, Any], last: int | None = None) -> Any:
    process = forked().Process(target=work, args=(folder, options, last))
    process.start()
    return process


def is_finished(folder: Path) -> bool:
    return (folder / "report.json").exists() and not (folder / "state").exists()


def finish(folder: Path, options: dict[str, Any]) -> float:
    """Runs to the end; seconds that it took."""
    before = time.perf_counter()
    process = start(folder, options)
    process.join()
    assert process.exitcode == 0
    return time.perf_counter() - before


@PRESETS
def test_killed_at_random_moments_a_run_ends_in_the_same_bits(tmp_path: Path, options: dict[str, Any]) -> None:
    """A run that died at any moment of its hour left nothing."""
    finish(tmp_path / "first", options)  # which waits for the processes' origin
    length = finish(tmp_path / "whole", options)
    whole, draw = outcome(tmp_path / "whole"), random.Random(7)  # noqa: S311 - no secret
    kills = chains = 0
    while kills < KILLS:
        folder, chains = tmp_path / f"chain-{chains}", chains + 1
        while kills < KILLS and not is_finished(folder):
            process = start(folder, options)
            process.join(draw.uniform(0, length))
            process.kill()
            process.join()
            assert process.exitcode in (0, -signal.SIGKILL)
            kills += process.exitcode != 0
        if not is_finished(folder):
            finish(folder, options)
        assert same(outcome(folder), whole)


@PRESETS
def test_killed_around_every_file_that_it_writes_a_run_ends_in_the_same_bits(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    """In turns right after a new file took its name, and right before the next would."""
    finish(tmp_path / "whole", options)
    folder, kills = tmp_path / "killed", 0
    while True:
        process = start(folder, options, last=1 + kills % 2)
        process.join()
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        kills += 1
        assert kills < 60, "it does not get on"
    assert kills >= 6
    assert same(outcome(folder), outcome(tmp_path / "whole"))
    left = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    written = {"weights/pruned.safetensors", "weights/pruned.json", "plan.json", "report.json", "report.html"}
    assert left - {"drawn.json"} == written, "nothing of the way is left"


def times_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "state").glob("time-*.json")}


@pytest.mark.parametrize("seed", range(1))
def test_killed_at_random_moments_a_target_in_time_is_met_by_the_times_that_were_taken(
    tmp_path: Path, seed: int
) -> None:
    """Times are other ones whenever they are taken: a run that goes on finds those it took before its end, and a run
    that is given them all ends in the same bits."""
    finish(tmp_path / "first", LATENCY)
    length, draw = finish(tmp_path / "second", LATENCY), random.Random(seed)  # noqa: S311 - no secret
    assert times_in(tmp_path / "first") != times_in(tmp_path / "second")
    folder, kills, kept = tmp_path / "killed", 0, {}
    while not (folder / "report.json").exists():
        soon = kills < 2 or kills % 2 == 1  # the first two by what is written: a machine may be faster than it was
        process = start(folder, LATENCY, last=draw.randrange(3 if kills < 2 else 6) if soon else None)
        process.join(draw.uniform(0, length) if not soon and kills < KILLS else None)
        process.kill()
        process.join()
        kills += process.exitcode != 0
        assert kills < 2 * KILLS, "it does not get on"
        now = times_in(folder)
        assert {name: now.get(name) for name in kept} == kept
        kept = now
    assert kills >= 2
    assert len(kept) > 3
    shutil.copytree(folder / "state", tmp_path / "given" / "state", ignore=lambda _, names: {*names} - {*kept})
    finish(tmp_path / "given", LATENCY)
    assert times_in(tmp_path / "given") == kept
    assert same(outcome(tmp_path / "given"), outcome(folder))


def stopped_before(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that ends where it would write that finding."""
    write = State.write_tensors

    def writing(self: State, called: str, *rest: Any) -> None:
        if called == name:
            raise KeyboardInterrupt
        write(self, called, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(State, "write_tensors", writing)
        with pytest.raises(KeyboardInterrupt):
            prune(Network(), batches, folder=folder, **SEED)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"keep": 0.25}, "what is asked for is not what this run began with"),
        ({"batch": 3}, "what is asked for is not what this run began with"),
        ({"seed": 1}, "what is asked for is not what this run began with"),
        ({"model": Network(1)}, "the network is not what this run began with"),
        ({"data": lambda: batches(1)}, "the images is not what this run began with"),
    ],
    ids=["settings", "batch", "seed", "network", "images"],
)
def test_a_run_goes_on_with_what_it_began_with_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], said: str
) -> None:
    """A plan half of one network and half of another would be neither's."""
    stopped_before(tmp_path, "steps", monkeypatch)
    found = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    given = {"model": Network(), "data": batches} | SEED | change
    with pytest.raises(InputError, match=said):
        prune(given.pop("model"), given.pop("data"), folder=tmp_path, **given)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == found


def test_where_and_how_fast_may_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped_before(tmp_path, "steps", monkeypatch)
    prune(Network(), batches, folder=tmp_path, cache_bytes=0, val=False, **SEED)
    prune(Network(), batches, folder=tmp_path / "whole", **SEED)
    assert same(outcome(tmp_path), outcome(tmp_path / "whole"))


def test_a_finished_run_is_left_as_it_is(tmp_path: Path) -> None:
    prune(Network(), batches, folder=tmp_path, **SEED)
    found = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match="holds a finished run: give another folder"):
        prune(Network(), batches, folder=tmp_path, **SEED)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == found


def test_a_run_that_is_ended_while_it_forgets_its_way_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of what was found was gone on with, by another run too: what said whose it was went first."""
    remove = shutil.rmtree

    def dying(path: str | Path, *rest: Any, **options: Any) -> None:
        if Path(path).is_dir() and Path(path).parent == tmp_path:
            (Path(path) / "settings.json").unlink()
            raise KeyboardInterrupt
        remove(path, *rest, **options)

    with monkeypatch.context() as patched:
        patched.setattr(states.shutil, "rmtree", dying)
        with pytest.raises(KeyboardInterrupt):
            prune(Network(), batches, folder=tmp_path, **SEED)
    assert is_finished(tmp_path)
    with pytest.raises(InputError, match="holds a finished run"):
        prune(Network(), batches, folder=tmp_path, **SEED | {"keep": 0.25})
    (tmp_path / "report.json").unlink()
    prune(Network(), batches, folder=tmp_path, **SEED)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("text", [b"", b"{", b'{"found": NaN}', b"\xff\xfe", b"[" * 100_000])
def test_a_damaged_finding_is_named(tmp_path: Path, text: bytes) -> None:
    """A disk that fails; what the message says helps."""
    state = State(tmp_path / "state")
    state.plain("network", lambda: "it")
    state.write_tensors("steps", {"a": torch.ones(2)})
    for name in ("network.json", "steps.safetensors"):
        (tmp_path / "state" / name).write_bytes(text)
    with pytest.raises(InputError, match=r"network\.json: is damaged .*remove it"):
        state.plain("network", lambda: "it")
    with pytest.raises(InputError, match=r"steps\.safetensors: is damaged .*remove it"):
        state.read_tensors("steps")
    for name in ("network.json", "steps.safetensors"):
        (tmp_path / "state" / name).unlink()
    assert state.plain("network", lambda: "other") == "other"
    assert state.read_tensors("steps") is None


def test_what_is_found_comes_back_to_the_bit(tmp_path: Path) -> None:
    numbers = [0.1 + 0.2, 1e-308, -0.0, 2.0**-1074, 1 / 3, math.nan, -math.inf]
    tensors = {"a": torch.randn(3, 4)[:, ::2], "b": torch.tensor([float("nan"), float("inf")]), "c": torch.zeros(0)}
    state = State(tmp_path / "new" / "state")
    assert state.is_empty
    assert state.plain("numbers", lambda: numbers) == numbers
    state.write_tensors("tensors", tensors, {"stages": 3, "loss": math.inf})
    again = State(tmp_path / "new" / "state")
    assert not again.is_empty
    assert [str(n) for n in again.plain("numbers", list)] == [str(n) for n in numbers]
    found, about = again.read_tensors("tensors") or ({}, None)
    assert about == {"stages": 3, "loss": math.inf}
    assert all(found[name].numpy().tobytes() == t.contiguous().numpy().tobytes() for name, t in tensors.items())
    again.clear()
    assert again.is_empty


def test_without_a_folder_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    state = State()
    assert [state.number("n", partial(float, made)) for made in (1.0, 2.0)] == [1.0, 2.0]
    state.write_tensors("t", {"a": torch.ones(1)})
    assert state.read_tensors("t") is None
    assert state.is_empty
    assert not list(tmp_path.iterdir())


def test_a_fit_goes_on_from_the_last_stage_that_it_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(states, "EVERY", 0.0)
    done: list[int] = []

    def fit(last: int) -> Callable[..., None]:
        def stages(start: int, on_stage: Callable[[int], None]) -> None:
            for stage in range(start, 4):
                if stage == last:
                    raise KeyboardInterrupt
                with torch.no_grad():
                    model.weight.mul_(2)
                done.append(stage)
                on_stage(stage + 1)

        return stages

    def new() -> nn.Linear:
        model = nn.Linear(1, 1, bias=False)
        nn.init.ones_(model.weight)
        return model

    model = new()
    with pytest.raises(KeyboardInterrupt):
        State(tmp_path).fitted("fit", model, fit(2))
    model = new()
    State(tmp_path).fitted("fit", model, fit(-1))
    assert (model.weight.item(), done) == (16, [0, 1, 2, 3])
    model = new()
    State(tmp_path).fitted("fit", model, fit(0))
    assert model.weight.item() == 16
    with pytest.raises(InputError, match="weights of another network"):
        State(tmp_path).fitted("fit", nn.Linear(2, 1, bias=False), fit(0))


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), PermissionError(13, "Permission denied")])
def test_a_full_disk_is_said_and_what_was_found_before_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    state = State(tmp_path / "state")
    state.plain("first", lambda: 1)

    def fails(*_: object) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", fails)
        with pytest.raises(SeqPruneError, match=r"second\.json cannot be written .*make room.*can be resumed"):
            state.plain("second", lambda: 2)
        with pytest.raises(SeqPruneError, match=r"t\.safetensors cannot be written .*can be resumed"):
            state.write_tensors("t", {"a": torch.ones(1)})
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["first.json"]
    assert state.plain("second", lambda: 2) == 2
