"""Timing in turns, with the device waited for."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import log
from statistics import median
from typing import Any

import torch

Action = Callable[[], Any]


def synchronise(device: torch.device) -> None:
    """Waits for what was queued on an accelerator."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@dataclass(frozen=True)
class Timed:
    """What an action returned and how long it took, in seconds."""

    result: Any
    seconds: float


def timed(action: Action, device: torch.device) -> Timed:
    """Runs an action on an idle device and waits for its end."""
    synchronise(device)
    clock = clock_for(device)
    start = clock()
    result = action()
    synchronise(device)
    return Timed(result, clock() - start)


def clock_for(device: torch.device) -> Callable[[], float]:
    """Processor time, of children too, where one thread works: what else a machine does adds little to that."""
    return _processor if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter


def _processor() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


class Once:
    """Runs what is slow a single time for all the benchmarks that want its time or its result."""

    def __init__(self) -> None:
        self._known: dict[Any, Timed] = {}

    def fresh(self, key: Any, action: Action, device: torch.device) -> Timed:
        """Runs it now, and remembers it."""
        self._known[key] = timed(action, device)
        return self._known[key]

    def get(self, key: Any, action: Action, device: torch.device) -> Timed:
        """Runs it unless it ran before."""
        return self._known[key] if key in self._known else self.fresh(key, action, device)


@dataclass
class Turns:
    """Ways of one job, run one after the other in every round.

    Attributes:
        results: by way, what it returned last.
        seconds: by way, its time in every round that counts.
    """

    results: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def run(self, name: str, action: Action, device: torch.device) -> Any:
        found = timed(action, device)
        self.results[name] = found.result
        self.seconds.setdefault(name, []).append(found.seconds)
        return found.result

    def best(self, name: str) -> float:
        """The fastest round: what disturbs a round only ever adds to it."""
        return min(self.seconds[name])

    def spread(self, name: str) -> float:
        """How far the ratios of single rounds lie around their median, relative: 1.48 × the median deviation."""
        ratios = [log(ours / other) for ours, other in zip(self.seconds["ours"], self.seconds[name], strict=True)]
        middle = median(ratios)
        return 1.4826 * median([abs(each - middle) for each in ratios])


def in_turns(
    benchmark: Any,
    action: Action,
    *,
    beside: Mapping[str, Action],
    device: torch.device,
    rounds: int = 5,
    warm_up: int = 1,
) -> Turns:
    """Benchmarks ``action``; before every round the ways ``beside`` it run once each, outside its time.

    ``extra_info`` gets ``ratio_to_NAME`` and ``NAME_seconds`` for each of them, fastest round against fastest round.
    Works with ``--benchmark-disable`` too: everything then runs once.

    Returns:
        All times and results; the action's own are under ``"ours"``.
    """
    turns = Turns()

    def others() -> None:
        for name, other in beside.items():
            turns.run(name, other, device)

    benchmark.pedantic(
        lambda: turns.run("ours", action, device),
        setup=others,
        rounds=rounds,
        warmup_rounds=warm_up,
    )
    for seconds in turns.seconds.values():
        if len(seconds) > warm_up:
            del seconds[:warm_up]
    for name in beside:
        benchmark.extra_info[f"{name}_seconds"] = turns.best(name)
        benchmark.extra_info[f"ratio_to_{name}"] = turns.best("ours") / turns.best(name)
        benchmark.extra_info[f"spread_of_{name}"] = turns.spread(name)
    benchmark.extra_info["clock"] = "processor" if clock_for(device) is _processor else "wall"
    benchmark.extra_info["device"] = describe(device)
    return turns


def ratio_to_slow(benchmark: Any, name: str, ours: float, slow: Timed) -> None:
    """Adds the ratio to a way that is too slow to run in turns; it decides only where there is no other."""
    benchmark.extra_info[f"once_{name}"] = True
    benchmark.extra_info[f"{name}_seconds"] = slow.seconds
    benchmark.extra_info[f"ratio_to_{name}"] = ours / slow.seconds


def describe(device: torch.device) -> str:
    """Name of a GPU, or the number of threads on the CPU."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"cpu, {torch.get_num_threads()} threads"
