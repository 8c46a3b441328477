"""A pruner on a network in a process of its own, with limits of processor time and memory.

What a pruner does to its process, from an exception to a crash, is a result with a reason: the suite goes on.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.forkserver as forkserver
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.reduction import send_handle
from pathlib import Path
from types import TracebackType
from typing import Any

from seqprune.plain import printable
from seqprune.testing.contracts import CONTRACTS, Result, State, needed
from seqprune.testing.process import Ended, Job, Limits, alone, serve

METHODS = multiprocessing.get_all_start_methods()
FORKS = sys.platform == "linux"
"""Elsewhere a process that has computed cannot be forked: libraries of the system keep threads."""
_PATIENCE = 6
"""Times the processor time: so long is waited for a process on a busy machine."""
_LONGEST = 300


def cell(
    pruner_name: str, subject_name: str, names: Collection[str] = tuple(CONTRACTS), limits: Limits | None = None
) -> dict[str, Result]:
    """What comes of contracts, and of those that they rest on, by name.

    Args:
        pruner_name: see :func:`seqprune.testing.pruners.pruner`.
        subject_name: see :func:`seqprune.testing.subjects.subject`.
        names: of the contracts.
        limits: of each process.
    """
    with Prepared(subject_name, limits or Limits()) as network:
        return network.cell(pruner_name, names)


def preload(*, ultralytics: bool) -> None:
    """Has the process that others are forked from import what they need; the first call decides.

    Args:
        ultralytics: whether its networks are tried too, which takes seconds more.
    """
    if "forkserver" in METHODS:
        modules = ["seqprune.testing.process", *(["seqprune.yolo.files.load"] if ultralytics else [])]
        multiprocessing.set_forkserver_preload(modules)
        forkserver.ensure_running()


@dataclass(frozen=True)
class _Case:
    """A case that goes on: where results come from, how its process ended, how it is ended before its time."""

    results: Connection
    code: Callable[[], int]
    end: Callable[[], None]


class Prepared:
    """A network that many pruners are tried on, each in a process of its own. Closing it ends its process.

    Attributes:
        subject: its name.
        limits: of each process.
        seconds: that cases took, of processor time; where processes cannot be forked, of any time.
    """

    def __init__(self, subject: str, limits: Limits) -> None:
        self.subject, self.limits, self.seconds = subject, limits, 0.0
        self._folder = tempfile.TemporaryDirectory()
        self._log, self._count = Path(self._folder.name) / "log", 0
        self._process: Any = None
        self._orders: Connection
        self._failed: Ended | None = None

    def __enter__(self) -> Prepared:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Ends what runs."""
        self._end()
        self._folder.cleanup()

    def cell(self, pruner_name: str, names: Collection[str] = tuple(CONTRACTS)) -> dict[str, Result]:
        """See :func:`cell`. A process that ends early costs the contract that it was at; another one asks the rest."""
        wanted = [each for each in CONTRACTS if any(each in (*needed(name), name) for name in names)]
        found: dict[str, Result] = {}
        while missing := [name for name in wanted if name not in found]:
            known = {name: result.state for name, result in found.items()}
            self._count += 1
            ended = self._asked(Job(pruner_name, tuple(wanted), known, f"{self._log}{self._count}"), found)
            rest = [name for name in missing if name not in found]
            if not ended.built:
                found |= {name: Result(name, "not run", ended.reason) for name in rest}
            elif rest:
                found[rest[0]] = Result(rest[0], ended.state, ended.reason)
        return found

    def _asked(self, job: Job, found: dict[str, Result]) -> Ended:
        """One process; results come into ``found`` as they are known."""
        case = self._forked(job) if FORKS else self._alone(job)
        if isinstance(case, Ended):
            return case
        ended, until = Ended(built=False), time.monotonic() + _PATIENCE * self.limits.seconds
        with case.results:
            while case.results.poll(max(0.0, until - time.monotonic())):
                try:
                    said = case.results.recv()
                except EOFError:
                    return ended if ended.reason else self._told(ended, case.code(), job.log)
                if isinstance(said, Result):
                    found[said.contract] = said
                else:
                    ended = said
        case.end()
        return replace(ended, state="out of time", reason=self._silent)

    def _told(self, ended: Ended, code: int, log: str) -> Ended:
        if not ended.built and FORKS:  # it ended over what all cases share: so it would for the next
            self._failed = ended = Ended(False, _why(code), _said(code, self._log, self.limits))
            return ended
        return replace(ended, state=_why(code), reason=_said(code, Path(log), self.limits))

    @property
    def _silent(self) -> str:
        return f"no answer for {_PATIENCE * self.limits.seconds:.0f} s"

    def _forked(self, job: Job) -> _Case | Ended:
        """From the process that has the network; why not, where there is none to be had."""
        if self._process is None and self._failed is None:
            self._failed = self._start()
        if self._failed is not None:
            return self._failed
        receiver, sender = multiprocessing.Pipe(duplex=False)
        with sender, suppress(OSError):  # where it has ended, so do the results, and `code` says why
            self._orders.send(job)
            send_handle(self._orders, sender.fileno(), self._process.pid)

        def code() -> int:
            try:
                found, seconds = self._orders.recv()
            except (EOFError, OSError):
                return self._gone()
            self.seconds += seconds
            return int(found)

        return _Case(receiver, code, self._end)

    def _start(self) -> Ended | None:
        """The process that has the network; why not, where it cannot be prepared."""
        preload(ultralytics=":" not in self.subject)
        self._orders, theirs = multiprocessing.Pipe()
        arguments = (theirs, self.subject, self.limits, str(self._log))
        self._process = _context().Process(target=serve, args=arguments, daemon=True)
        self._process.start()
        theirs.close()
        if not self._orders.poll(_PATIENCE * self.limits.seconds):
            self._end()
            return Ended(False, "out of time", self._silent)
        try:
            said: Ended = self._orders.recv()
        except EOFError:
            code = self._gone()
            return Ended(False, _why(code), _said(code, self._log, self.limits))
        if said.built:
            return None
        self._gone()
        return said

    def _gone(self) -> int:
        """The exit code of the process that had the network; another can be started then."""
        self._process.join()
        code = int(self._process.exitcode)
        self._end()
        return code

    def _end(self) -> None:
        """Ends the process that has the network, and what it started."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        self._process.join()
        self._orders.close()
        self._process = None

    def _alone(self, job: Job) -> _Case:
        """A process that prepares the network for this case alone."""
        preload(ultralytics=":" not in self.subject)
        receiver, sender = multiprocessing.Pipe(duplex=False)
        process = _context().Process(target=alone, args=(sender, job, self.subject, self.limits), daemon=True)
        start = time.monotonic()
        process.start()
        sender.close()

        def code() -> int:
            process.join()
            self.seconds += time.monotonic() - start
            return int(process.exitcode)

        def end() -> None:
            process.kill()
            process.join()

        return _Case(receiver, code, end)


def _context() -> Any:
    return multiprocessing.get_context("forkserver" if "forkserver" in METHODS else "spawn")


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
