"""Inside the processes of the suite: limits, the network, the contracts.

On Linux a process prepares a network and what pruners are compared with, once, and forks itself for every case. It
starts no threads and follows no gradients, so a fork has all that it had. Elsewhere each case prepares for itself.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from typing import Any, NoReturn

import torch
from torch import nn

from seqprune.errors import SeqPruneError
from seqprune.graph.values import NETWORK_FAILS, first_line
from seqprune.testing.contracts import Result, State, results
from seqprune.testing.pruners import PRUNERS, pruner
from seqprune.testing.references import share
from seqprune.testing.subjects import subject
from seqprune.testing.trial import ContractError, Inputs, Trial, trial, trial_of_own

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]


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


@dataclass(frozen=True)
class Job:
    """One case: a pruner, what it is asked, what is known already, and a file for what it writes."""

    pruner: str
    names: tuple[str, ...]
    known: Mapping[str, State]
    log: str


@dataclass(frozen=True)
class Ended:
    """How far a case came: whether there was a network to try anything on, and why it went no further."""

    built: bool
    state: State = "crashed"
    reason: str = ""


class Network:
    """A network by name, and the trial of it that pruners share."""

    def __init__(self, name: str, limits: Limits) -> None:
        self.limits = limits
        self.model: nn.Module
        self.model, self.inputs = subject(name)
        self._trial: Trial | Exception | None = None

    def share(self, job: Job) -> None:
        """Makes what the cases of a job compare with."""
        if not (job.pruner in PRUNERS and PRUNERS[job.pruner].own):
            share(self.trial, [name for name in job.names if name not in job.known])

    @property
    def trial(self) -> Trial:
        """Without a pruner.

        Raises:
            InputError: the network cannot be traced.
        """
        if self._trial is None:
            try:
                self._trial = trial(self.model, _nobody, self.inputs, layers=self.limits.layers)
            except (*NETWORK_FAILS, SeqPruneError) as error:
                self._trial = error
        if isinstance(self._trial, Exception):
            raise self._trial
        return self._trial


def serve(orders: Connection, name: str, limits: Limits, log: str) -> None:
    """Prepares a network, and forks for each case that comes; to each it answers with exit code and seconds.

    Args:
        orders: brings a :class:`Job`, and the end of a pipe for its results.
        name, limits: of the network and of every process.
        log: file for what is written before a case.
    """
    os.setsid()  # so that it and what its cases start can be ended together
    _write_to(log)
    _limit(limits, last=False)
    try:
        network = Network(name, limits)
    except (*NETWORK_FAILS, SeqPruneError) as error:
        orders.send(Ended(built=False, reason=first_line(error)))
        return
    orders.send(Ended(built=True))
    spent = 0.0
    while True:
        try:
            job = orders.recv()
        except EOFError:
            return
        results_to = Connection(recv_handle(orders), readable=False)
        _limit(limits, last=False)
        try:
            network.share(job)
        except (*NETWORK_FAILS, SeqPruneError):
            pass  # the case says so
        child = os.fork()
        if not child:
            orders.close()
            _ending(partial(work, results_to, job, network))
        results_to.close()
        _, status, used = os.wait4(child, 0)
        before, spent = spent, time.process_time()
        orders.send((os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime + spent - before))


def alone(results_to: Connection, job: Job, name: str, limits: Limits) -> None:
    """One case in a process that prepares its network itself."""
    _write_to(job.log)
    _limit(limits, last=True)
    try:
        network = Network(name, limits)
    except (*NETWORK_FAILS, SeqPruneError) as error:
        results_to.send(Ended(built=False, reason=first_line(error)))
        return
    work(results_to, job, network)


def work(results_to: Connection, job: Job, network: Network) -> None:
    """The contracts of one case; results are sent as they are known."""
    _write_to(job.log)
    _limit(network.limits, last=True)
    torch.manual_seed(0)
    try:
        tried = pruner(job.pruner)
        asked = None if tried.own else replace(network.trial, prune=tried.prune)
    except (*NETWORK_FAILS, SeqPruneError) as error:
        results_to.send(Ended(built=False, reason=first_line(error)))
        return
    results_to.send(Ended(built=True))
    if asked is None:
        try:
            asked = trial_of_own(network.model, tried.prune, network.inputs)
        except ContractError as error:
            results_to.send(Result("returns", "fails", error.message))
            for name in job.names[1:]:
                results_to.send(Result(name, "blocked", "rests on returns"))
            return
    for result in results(asked, job.names, tried.own, job.known):
        results_to.send(result)


def _nobody(module: nn.Module, _inputs: Inputs, _keep: Any) -> nn.Module:
    return module


def _ending(do: Callable[[], None]) -> NoReturn:
    """Ends this process after it did this; what ends it before is written, and goes no further up."""
    code = 1
    try:
        do()
        code = 0
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            code = end.code or 0
        else:
            sys.stderr.write(f"{end.code}\n")
    finally:
        if sys.exc_info()[1] is not None:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _write_to(log: str) -> None:
    """What this process writes goes into a file."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.close(file)


def _limit(limits: Limits, *, last: bool) -> None:
    """Limits for this process, from now on; after the ``last`` there are no others."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if resource is not None:
        seconds, size = int(time.process_time() + limits.seconds) + 1, int(limits.gigabytes * 2**30)
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5 if last else resource.RLIM_INFINITY))
        resource.setrlimit(resource.RLIMIT_DATA, (size, size))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
