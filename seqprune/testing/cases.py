"""A pruner on a network in a process of its own, with limits of processor time and memory.

What a pruner does to its process, from an exception to a crash, is a result with a reason: the suite goes on.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.forkserver as forkserver
import os
import signal
import tempfile
import time
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from seqprune.errors import SeqPruneError
from seqprune.graph.values import NETWORK_FAILS, first_line
from seqprune.plain import printable
from seqprune.testing.contracts import CONTRACTS, Result, State, needed, results
from seqprune.testing.pruners import pruner
from seqprune.testing.subjects import subject
from seqprune.testing.trial import ContractError, trial, trial_of_own

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

METHODS = multiprocessing.get_all_start_methods()
_PATIENCE = 6
"""Times the processor time: so long is waited for a process on a busy machine."""
_LONGEST = 300


@dataclass(frozen=True)
class Limits:
    """Of one process.

    Attributes:
        seconds: of processor time.
        gigabytes: of memory that it asks for.
        layers: how many layers are pruned alone at most; ``None`` for all.
    """

    seconds: float = 120.0
    gigabytes: float = 8.0
    layers: int | None = None


def cell(
    pruner_name: str, subject_name: str, names: Collection[str] = tuple(CONTRACTS), limits: Limits | None = None
) -> dict[str, Result]:
    """What comes of contracts, and of those that they rest on, by name.

    A process that ends early costs the contract that it was at; another one asks the rest.

    Args:
        pruner_name: see :func:`seqprune.testing.pruners.pruner`.
        subject_name: see :func:`seqprune.testing.subjects.subject`.
        names: of the contracts.
        limits: of each process.
    """
    limits = limits or Limits()
    wanted = [each for each in CONTRACTS if any(each in (*needed(name), name) for name in names)]
    found: dict[str, Result] = {}
    while missing := [name for name in wanted if name not in found]:
        known = {name: result.state for name, result in found.items()}
        ended = _asked(_Job(pruner_name, subject_name, tuple(wanted), known, limits), found)
        rest = [name for name in missing if name not in found]
        if not ended.built:
            found |= {name: Result(name, "not run", ended.reason) for name in rest}
        elif rest:
            found[rest[0]] = Result(rest[0], ended.state, ended.reason)
    return found


def preload(*, ultralytics: bool) -> None:
    """Has the process that others are forked from import what they need; the first call decides.

    Args:
        ultralytics: whether its networks are tried too, which takes seconds more.
    """
    if "forkserver" in METHODS:
        modules = ["seqprune.testing.cases", *(["seqprune.yolo.files.load"] if ultralytics else [])]
        multiprocessing.set_forkserver_preload(modules)
        forkserver.ensure_running()


@dataclass(frozen=True)
class _Job:
    pruner: str
    subject: str
    names: tuple[str, ...]
    known: Mapping[str, State]
    limits: Limits


@dataclass(frozen=True)
class _Ended:
    """How a process ended: whether there was a network to try anything on, and why it went no further."""

    built: bool
    state: State = "crashed"
    reason: str = ""


def _asked(job: _Job, found: dict[str, Result]) -> _Ended:
    """One process; results come into ``found`` as they are known."""
    context: Any = multiprocessing.get_context("forkserver" if "forkserver" in METHODS else "spawn")
    preload(ultralytics=":" not in job.subject)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(sender, str(log), job), daemon=True)
        process.start()
        sender.close()
        until = time.monotonic() + _PATIENCE * job.limits.seconds
        ended = _Ended(built=False)
        while receiver.poll(max(0.0, until - time.monotonic())):
            try:
                said = receiver.recv()
            except EOFError:
                process.join()
                return replace(ended, state=_why(process.exitcode), reason=_said(process.exitcode, log, job.limits))
            if isinstance(said, Result):
                found[said.contract] = said
            elif isinstance(said, _Ended):
                ended = said
                if not ended.built:
                    process.join()
                    return ended
        process.kill()
        process.join()
        return replace(ended, state="out of time", reason=f"no answer for {_PATIENCE * job.limits.seconds:.0f} s")


def _why(code: int) -> State:
    return "out of time" if -code == getattr(signal, "SIGXCPU", 0) else "crashed"


def _said(code: int, log: Path, limits: Limits) -> str:
    """Why a process ended early, from its exit code and the last line that it wrote."""
    if _why(code) == "out of time":
        return f"more than {limits.seconds:.0f} s of processor time"
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    said = printable(lines[-1], _LONGEST) if lines else "it said nothing"
    if code < 0:
        return f"the process was ended by {signal.Signals(-code).name}; {said}"
    return f"the process ended with exit code {code}; {said}"


def _work(sender: Connection, log: str, job: _Job) -> None:
    """In the process: limits, the network, the contracts."""
    _limit(job.limits, log)
    try:
        model, inputs = subject(job.subject)
        tried = pruner(job.pruner)
        if not tried.own:
            asked = trial(model, tried.prune, inputs, layers=job.limits.layers)
    except (*NETWORK_FAILS, SeqPruneError) as error:
        sender.send(_Ended(built=False, reason=first_line(error)))
        return
    sender.send(_Ended(built=True))
    if tried.own:
        try:
            asked = trial_of_own(model, tried.prune, inputs)
        except ContractError as error:
            sender.send(Result("returns", "fails", error.message))
            for name in job.names[1:]:
                sender.send(Result(name, "blocked", "rests on returns"))
            return
    for result in results(asked, job.names, tried.own, job.known):
        sender.send(result)


def _limit(limits: Limits, log: str) -> None:
    """Limits for this process, and what it writes into a file."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(file, stream)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if resource is not None:
        seconds, size = int(limits.seconds) + 1, int(limits.gigabytes * 2**30)
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
        resource.setrlimit(resource.RLIMIT_DATA, (size, size))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
