"""Where methods prune and what they leave is measured, row by row; each row is kept as it comes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from torch import nn

from seqprune.budget.target import Target
from seqprune.engine.listener import Listener
from seqprune.engine.state import State
from seqprune.engine.task import Task
from seqprune.errors import ChangedError, LostError, SeqPruneError
from seqprune.graph.channels import ChannelGraph
from seqprune.measure.methods import IMGSZ, Method, size_for
from seqprune.yolo.task.measured import SameImages
from seqprune.yolo.task.profile import gflops, latencies_ms, parameters
from seqprune.yolo.task.validate import validate
from seqprune.yolo.train.tuning import finetune as tuned

UNPRUNED = "unpruned"
COUNTED = {"params": "parameters", "flops": "operations"}


@dataclass(frozen=True)
class Row:
    """One method at one target; what was not measured is ``None``.

    Attributes:
        method: its name, or ``unpruned``.
        target: share that was asked for, of the parameters or operations.
        params: parameters that stay.
        share: the share that stays of what is counted.
        gflops: of one image.
        latency_ms: of one image: what the unpruned network takes, by the ratio of both, timed in turns.
        map50_95, map50: accuracy on the val images.
        seconds: that the pruning took, without fine-tuning.
        reason: why the method gave nothing; empty where it did.
        imgsz: side of the images in pixels, where that is what the method changes.
        runs: mAP50-95 after each calibration subset, where there are several: all else is a mean over them then, but
            the latency, which is the first one's.
    """

    method: str
    target: float
    params: int | None = None
    share: float | None = None
    gflops: float | None = None
    latency_ms: float | None = None
    map50_95: float | None = None
    map50: float | None = None
    seconds: float = 0.0
    reason: str = ""
    runs: tuple[float, ...] = ()
    imgsz: int | None = None

    def __str__(self) -> str:
        """On one line, as soon as it is known."""
        name = self.method if self.method == UNPRUNED else f"{self.method} at {self.target:g}"
        if self.params is None:
            return f"{name}: {self.reason}"
        accuracy = f"mAP50-95 {self.map50_95:.4f}{self.spread}"
        return f"{name}: {self.params:,} parameters, {self.gflops:.2f} GFLOPs, {accuracy}"

    @property
    def spread(self) -> str:
        """The least and the most that several subsets gave; empty of one."""
        return f" ({min(self.runs):.4f}–{max(self.runs):.4f})" if self.runs else ""

    def plain(self) -> dict[str, Any]:
        """As JSON holds it: without ``runs`` where there was one, and ``imgsz`` where it is that of all."""
        return {name: value for name, value in asdict(self).items() if name not in ("runs", "imgsz") or value}


def mean_of(rows: Sequence[Row]) -> Row:
    """One row of several that differ only in what the method looked at; of one, that row."""
    if len(rows) == 1:
        return rows[0]

    def mean(name: str) -> float:
        return float(sum(getattr(row, name) for row in rows)) / len(rows)

    means: dict[str, Any] = {name: mean(name) for name in ("share", "gflops", "map50_95", "map50", "seconds")}
    accuracies = tuple(row.map50_95 for row in rows if row.map50_95 is not None)
    return replace(rows[0], params=round(mean("params")), runs=accuracies, **means)


@dataclass(frozen=True)
class Bench:
    """What methods prune, what they look at, and how what they leave is measured."""

    model: nn.Module
    graph: ChannelGraph
    samples: Sequence[Task]
    data: str | Path
    count: str
    imgsz: int
    batch: int
    device: str
    seed: int
    finetune: int
    told: Listener
    tell: Callable[[Row], None]
    state: State
    same: SameImages

    @property
    def about(self) -> tuple[object, ...]:
        """What rows are measured by."""
        return self.count, self.imgsz, self.batch, self.seed, len(self.samples), self.finetune

    @cached_property
    def whole(self) -> float:
        """What is counted of the unpruned network."""
        return parameters(self.model) if self.count == "params" else gflops(self.model, self.imgsz)

    @cached_property
    def unpruned(self) -> Row:
        def make() -> Row:
            self.told.stage("measure unpruned", None)
            row = self.measured(Row(UNPRUNED, 1.0), self.model)
            return replace(row, latency_ms=latencies_ms([self.model], self.imgsz, "cpu")[0])

        return self.kept(UNPRUNED, make)

    def kept(self, name: str, make: Callable[[], Row]) -> Row:
        """The row of that name, measured now or before; with its reason where the method failed."""

        def plain() -> dict[str, Any]:
            return make().plain()

        found = self.state.plain(f"row-{name}", plain)
        return Row(**(found | {"runs": tuple(found.get("runs", ()))}))

    def pruned(self, row: Row, prune: Method) -> Row:
        """The row's mean over all samples; with its reason where one of them failed."""
        runs: list[Row] = []
        for number in range(len(self.samples)):
            run = self.kept(f"{row.target!r}-{row.method}-{number}", partial(self.run, row, prune, number))
            if run.reason:
                return run
            runs.append(run)
            if len(self.samples) > 1:
                self.tell(run)
        return mean_of(runs)

    def run(self, row: Row, prune: Method, number: int) -> Row:
        """What the method leaves with one sample."""
        what = f"{row.method} at {row.target:g}"
        self.told.stage(what + (f", subset {number + 1}" if len(self.samples) > 1 else ""), None)
        try:
            start = time.perf_counter()
            if row.method == IMGSZ:
                row = replace(row, imgsz=size_for(self.model, self.imgsz, row.target))
            small = prune(
                self.model, self.graph, Target(self.count, row.target), self.samples[number], self.seed + number
            )
            seconds = time.perf_counter() - start
            if self.finetune:
                self.told.stage(f"{what}, fine-tune {self.finetune} epochs", None)
                how: dict[str, Any] = {"imgsz": self.imgsz, "batch": self.batch, "device": self.device}
                small = tuned(small, self.data, epochs=self.finetune, seed=self.seed + number, state=self.state, **how)
            return self.measured(replace(row, seconds=seconds), small)
        except (LostError, ChangedError):
            raise
        except SeqPruneError as error:
            return replace(row, reason=str(error))

    def measured(self, row: Row, network: nn.Module) -> Row:
        size = row.imgsz or self.imgsz
        accuracy = validate(network, self.data, imgsz=size, batch=self.batch, device=self.device)
        self.same.check(accuracy.images)
        params, operations = parameters(network), gflops(network, size)
        share = (params if self.count == "params" else operations) / self.whole
        row = replace(
            row, params=params, share=share, gflops=operations, map50_95=accuracy.map50_95, map50=accuracy.map50
        )
        if network is self.model:
            return row
        # In turns with the unpruned one: rows are hours apart, and a busy machine would tell more than the networks.
        slow, fast = latencies_ms([self.model, network], [self.imgsz, size], "cpu")
        return replace(row, latency_ms=(self.unpruned.latency_ms or slow) * fast / slow)
