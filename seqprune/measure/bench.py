"""Where methods prune and what they leave is measured, row by row; each row is kept as it comes."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from torch import nn

from seqprune.budget.cost import gflops, latencies_ms, parameters
from seqprune.budget.target import Target
from seqprune.engine.listener import Listener
from seqprune.engine.portrait import overall
from seqprune.engine.state import State
from seqprune.engine.stopwatch import Stopwatch
from seqprune.engine.subject import Subject
from seqprune.engine.task import Task
from seqprune.errors import ChangedError, DataError, LostError, SeqPruneError
from seqprune.measure.comparison import UNPRUNED, Row, mean_of
from seqprune.measure.methods import EIGHT_BITS, IMGSZ, Method, smaller
from seqprune.observe.ranks import ALONE, Ranks
from seqprune.plan import PrunePlan
from seqprune.runtimes.where import Where

Tune = Callable[[nn.Module, int], nn.Module]
"""Given a pruned network and a seed, the trained one."""


@dataclass(frozen=True)
class Bench:
    """What methods prune, what they look at, and how what they leave is measured.

    Attributes:
        subject: the unpruned network and its task, which measures accuracy.
        samples: tasks with what methods look at, one a calibration subset.
        count: what targets are shares of, ``params`` or ``flops``.
        seed: of every random choice.
        told: what is going on.
        tell: told each row, and with what each of several subsets gave before.
        state: where rows are kept.
        tune: trains what a method left; ``None`` trains nothing.
        places: runtimes in which every row is timed, beside the bare forward pass.
        tool: the one of them whose tool brings networks to eight bits, where that is asked for.
        ranks: the processes that share the rows.
    """

    subject: Subject
    samples: Sequence[Task]
    count: str
    seed: int
    told: Listener
    tell: Callable[[Row], None]
    state: State
    tune: Tune | None = None
    places: Sequence[Where] = ()
    tool: Where | None = None
    ranks: Ranks = ALONE
    _found: dict[str, Any] = field(default_factory=dict, init=False, repr=False)
    _made: dict[tuple[str, float], tuple[nn.Module, Task]] = field(default_factory=dict, init=False, repr=False)

    @property
    def model(self) -> nn.Module:
        return self.subject.model

    @cached_property
    def whole(self) -> float:
        """What is counted of the unpruned network."""
        return parameters(self.model) if self.count == "params" else gflops(self.model, self._example(self.model))

    @cached_property
    def unpruned(self) -> Row:
        """
        Raises:
            DataError: its accuracy cannot be measured.
        """

        def make() -> Row:
            self.told.stage("measure unpruned", None)
            row = self.measured(Row(UNPRUNED, 1.0), self.model, self.subject.task)
            times = {}
            for where in self.places:
                (spread,) = Stopwatch(where, self.subject.task).networks([(self.subject.task, self.model)])
                times[where.runtime] = spread.median
            example = self._example(self.model)
            return replace(row, latency_ms=latencies_ms([self.model], [example], "cpu")[0], times=times)

        return Row.of(self.ranks.first(lambda: self.kept(UNPRUNED, make).plain()))

    def kept(self, name: str, make: Callable[[], Row]) -> Row:
        """The row of that name, measured now or before; with its reason where the method failed."""
        if name not in self._found:
            self._found[name] = self.state.plain(f"row-{name}", lambda: make().plain())
        return Row.of(self._found[name])

    def recall(self, of: Sequence[tuple[float, str]]) -> None:
        """Every process gets the unpruned network's row, and those of an earlier comparison of these methods."""
        names = [name for target, method in of for name in (*self._runs(target, method), _small(target, method))]
        known = self.ranks.first(lambda: {name: self.state.read_plain(f"row-{name}") for name in names})
        self._found.update({name: row["found"] for name, row in known.items() if row is not None})
        self._found[UNPRUNED] = self.unpruned.plain()  # here, where all of them ask for it

    def exchange(self) -> None:
        """Every process gets the rows that each has measured; the first keeps them."""
        found = self.ranks.joined(self._found)
        if self.ranks.rank == 0:
            for name in found.keys() - self._found.keys():
                self.state.write_plain(f"row-{name}", {"found": found[name]})
        self._found.update(found)

    def _runs(self, target: float, method: str) -> list[str]:
        """Names under which the rows of a method are kept, one a sample."""
        return [f"{target!r}-{method}-{number}" for number in range(len(self.samples))]

    def pruned(self, row: Row, prune: Method, tell: Callable[[Row], None]) -> Row:
        """The row's mean over all samples; with its reason where one of them failed."""
        runs: list[Row] = []
        for number, name in enumerate(self._runs(row.target, row.method)):
            run = self.kept(name, partial(self.run, row, prune, number))
            if run.reason:
                return run
            runs.append(run)
            if len(self.samples) > 1:
                tell(run)
        return mean_of(runs)

    def run(self, row: Row, prune: Method, number: int) -> Row:
        """What the method leaves with one sample."""
        what = f"{row.method} at {row.target:g}"
        self.told.stage(what + (f", subset {number + 1}" if len(self.samples) > 1 else ""), None)
        task, target, seed = self.samples[number], Target(self.count, row.target), self.seed + number
        try:
            start = time.perf_counter()
            small = prune(self.model, self.subject.graph, target, task, seed)
            if row.method == IMGSZ:
                task = smaller(self.model, self.subject.task, row.target)
                row = replace(row, imgsz=task.imgsz)
            seconds = time.perf_counter() - start
            if self.tune is not None:
                self.told.stage(f"{what}, fine-tune", None)
                small = self.tune(small, seed)
            if number == 0 and self.tool is not None:
                self._made.clear()
                self._made[row.method, row.target] = small, task
            return self.measured(replace(row, seconds=seconds), small, task)
        except (LostError, ChangedError):
            raise
        except SeqPruneError as error:
            return replace(row, reason=str(error))

    def quantised(self, row: Row, prune: Method | None = None) -> Row:
        """The same network in eight bits, calibrated on the first sample; pruned again if an earlier run did."""
        name = _in_eight_bits(row.method)
        return self.kept(_small(row.target, row.method), partial(self._quantised, row, name, prune))

    def _quantised(self, row: Row, name: str, prune: Method | None) -> Row:
        assert self.tool is not None  # noqa: S101 - whoever asks for it has one
        assert self.subject.eight_bits is not None  # noqa: S101
        self.told.stage(f"{name} at {row.target:g}", None)
        if prune is not None and (row.method, row.target) not in self._made:
            self.run(Row(row.method, row.target), prune, 0)
        network, task = self._made.get((row.method, row.target), (self.model, self.samples[0]))
        watch = Stopwatch(self.tool, self.subject.task)
        with tempfile.TemporaryDirectory(prefix="seqprune-") as folder:
            try:
                found = self.subject.eight_bits(network, task, watch, Path(folder))
            except SeqPruneError as error:
                return Row(name, row.target, reason=str(error))
        small, whole = found["int8"], found["float"]
        where = self.tool.runtime
        return replace(
            row,
            method=name,
            latency_ms=None,
            accuracy=small["accuracy"],
            in_floats=whole["accuracy"][next(iter(small["accuracy"]))],
            runs=(),
            times={where: row.times[where] * small["ms"]["median"] / whole["ms"]["median"]},
            file_bytes=small["file_bytes"],
        )

    def measured(self, row: Row, network: nn.Module, task: Task) -> Row:
        """The row with what the network costs and how good it is, as the task says."""
        accuracy = overall(task.accuracy(network))
        found = {name: value for name, value in accuracy.items() if math.isfinite(value)}
        if not found:
            raise DataError(
                "accuracy is not measured, and methods are compared by it: give val images with classes, or evaluate="
            )
        example = task.example(network)
        params, operations = parameters(network), gflops(network, example)
        share = (params if self.count == "params" else operations) / self.whole
        given = None if network is self.model else PrunePlan((), self.subject.graph.inputs)  # of a file that is there
        size = task.file_bytes(network, given)
        row = replace(row, params=params, share=share, gflops=operations, accuracy=found, file_bytes=size)
        if network is self.model:
            return row
        # In turns with the unpruned one: rows are hours apart, and a busy machine would tell more than the networks.
        slow, fast = latencies_ms([self.model, network], [self._example(self.model), example], "cpu")
        times = {where.runtime: self._time(where, network, task) for where in self.places}
        return replace(row, latency_ms=(self.unpruned.latency_ms or slow) * fast / slow, times=times)

    def _time(self, where: Where, network: nn.Module, task: Task) -> float:
        """What the unpruned network takes there, by the ratio of both."""
        given = [(self.subject.task, self.model), (task, network)]
        slow, fast = Stopwatch(where, self.subject.task).networks(given)
        return self.unpruned.times[where.runtime] * fast.median / slow.median

    def _example(self, model: nn.Module) -> object:
        return self.subject.task.example(model)


def _in_eight_bits(method: str) -> str:
    return EIGHT_BITS if method == UNPRUNED else f"{method}+{EIGHT_BITS}"


def _small(target: float, method: str) -> str:
    """The name under which the row of a method in eight bits is kept."""
    return f"{target!r}-{_in_eight_bits(method)}"
