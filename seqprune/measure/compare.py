"""Methods of pruning at equal parameters or operations, on the same images, without training: a table and a plot."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from seqprune.atomic import write_text
from seqprune.budget.target import Target
from seqprune.engine.listener import Listener
from seqprune.engine.task import Task
from seqprune.errors import InputError, SeqPruneError
from seqprune.graph.channels import ChannelGraph
from seqprune.measure.methods import IMGSZ, Method, method, size_for
from seqprune.report.plot import document, key, lines, table
from seqprune.yolo.data.subset import train_subsets
from seqprune.yolo.files.load import load
from seqprune.yolo.task.measured import SameImages
from seqprune.yolo.task.profile import gflops, latencies_ms, parameters
from seqprune.yolo.task.task import YoloTask
from seqprune.yolo.task.tracing import trace_detector
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
        latency_ms: of one image, timed in turns with all others.
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
class Comparison:
    """Rows, the unpruned network first, then target by target."""

    model: str
    data: str
    settings: dict[str, Any]
    rows: tuple[Row, ...]

    def to_json(self) -> str:
        return json.dumps(asdict(self) | {"rows": [row.plain() for row in self.rows]}, indent=2) + "\n"

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """Head and cells of the table."""
        head = "method|target|share|parameters|GFLOPs|ms|mAP50-95|of unpruned|mAP50|seconds".split("|")
        whole = self.rows[0].map50_95

        def number(value: float | None, form: str) -> str:
            return "–" if value is None else format(value, form)

        return head, [
            [
                row.method + (f" ({row.reason})" if row.reason else ""),
                f"{row.target:g}",
                number(row.share, ".3f"),
                number(row.params, ",d"),
                number(row.gflops, ".2f"),
                number(row.latency_ms, ".1f"),
                number(row.map50_95, ".4f") + row.spread,
                number(row.map50_95 / whole if row.map50_95 is not None and whole else None, ".1%"),
                number(row.map50, ".4f"),
                f"{row.seconds:.1f}",
            ]
            for row in self.rows
        ]

    def to_markdown(self) -> str:
        head, rows = self.cells()
        marks = ["---", *(["---:"] * (len(head) - 1))]
        return "".join(f"| {' | '.join(cells)} |\n" for cells in (head, marks, *rows))

    def to_html(self) -> str:
        whole, rest = self.rows[0], [row for row in self.rows[1:] if row.map50_95 is not None]
        names = list(dict.fromkeys(row.method for row in rest))
        counted = self.settings.get("target", "parameters")
        size = ("parameters that stay", "params")
        if counted == "parameters":
            size = ("share of the parameters", "share")
        plots = []
        for title, unit, attribute in (
            ("Over parameters", *size),
            ("Over operations", "GFLOPs of one image", "gflops"),
            ("Over time", "milliseconds for one image", "latency_ms"),
        ):
            series: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
            for row in rest:
                series[row.method].append((getattr(row, attribute), row.map50_95 or 0.0))
            for its in series.values():
                its.append((getattr(whole, attribute), whole.map50_95 or 0.0))
            spans = [(row.method, getattr(row, attribute), min(row.runs), max(row.runs)) for row in rest if row.runs]
            plots.append(lines(title, unit, "mAP50-95", series, spans))
        about = f"{self.model} on {self.data}; " + ", ".join(f"{name} {value}" for name, value in self.settings.items())
        pictures = f'{key(names)}<div class="plots">{"".join(plots)}</div>'
        return document(f"Methods at equal {counted}", about, pictures, table(*self.cells()))

    def write(self, folder: Path) -> None:
        """Writes ``compare.json``, ``compare.md`` and ``compare.html`` into a folder that exists."""
        for ending, text in (("json", self.to_json()), ("md", self.to_markdown()), ("html", self.to_html())):
            write_text(folder / f"compare.{ending}", text)


def compare(
    model: str | Path | nn.Module | Any,
    data: str | Path,
    *,
    targets: Sequence[float],
    methods: Sequence[str],
    count: str = "params",
    images: int | None = 128,
    imgsz: int = 640,
    batch: int = 16,
    device: str | int = "cpu",
    seed: int = 0,
    subsets: int = 1,
    finetune: int = 0,
    listener: Listener | None = None,
    on_row: Callable[[Row], None] | None = None,
) -> Comparison:
    """Prunes with each method to each target and measures what is left, without training unless it is asked for.

    Args:
        model: weights, an ``ultralytics.YOLO`` or its network; never changed.
        data: dataset YAML: methods look at ``train`` images, accuracy is measured on ``val`` images.
        targets: shares that stay.
        methods: names, see :func:`method`.
        count: of what: ``params``, or ``flops``.
        images: training images, a seeded sample, the same for every method; all of them where None.
        imgsz, batch: of calibration and validation.
        device: where accuracy is measured; pruning and timing are on the CPU.
        seed: of every random choice.
        subsets: calibration subsets of so many ``images``, without one in common where there are enough; each method
            prunes with each of them, with a seed of its own, and its row has the mean and the spread.
        finetune: epochs on all ``train`` images afterwards, alike for every method, in the shape it left.
        listener: told what is going on.
        on_row: called with each row, and with what each of several subsets gave before; latency is measured at the end.

    A method that fails gives a row with its reason, and the others go on.

    Raises:
        InputError: weights, data, names or numbers that cannot be used.
    """
    chosen = {name: method(name) for name in methods}
    if subsets < 1 or finetune < 0:
        raise InputError(
            f"subsets={subsets}, finetune={finetune}: give the number of samples that methods look at, 1 or more, and "
            "epochs, 0 or more"
        )
    if count not in COUNTED:
        raise InputError(f"methods are compared at equal parameters or operations, not {count}: choose params or flops")
    if not targets or not chosen or not all(0 < target < 1 for target in targets):
        raise InputError(f"a comparison needs a method and a target: give shares of the {COUNTED[count]} in (0, 1)")
    told = listener or Listener()
    detector = load(model, seed=seed)
    graph = trace_detector(detector.model)
    seen = train_subsets(
        data,
        subsets,
        images=images,
        imgsz=imgsz,
        batch=batch,
        stride=detector.stride,
        names=detector.names,
        seed=seed,
    )
    tasks = [YoloTask(sample, detector.names, imgsz) for sample in seen]
    tell = on_row or (lambda _row: None)
    same = SameImages(told.warning)
    about = (detector.model, graph, tasks)
    bench = _Bench(*about, data, count, imgsz, batch, str(device), seed, finetune, told, tell, same)
    told.stage("measure unpruned", None)
    rows, networks = [bench.measured(Row(UNPRUNED, 1.0), detector.model)], [detector.model]
    tell(rows[0])
    failed = []
    for target in targets:
        for name, prune in chosen.items():
            try:
                row, network = bench.pruned(Row(name, target), prune)
            except SeqPruneError as error:
                failed.append(Row(name, target, reason=str(error)))
                tell(failed[-1])
                continue
            rows.append(row)
            networks.append(network)
            tell(row)
    told.stage("measure latency", None)
    times = latencies_ms(networks, [row.imgsz or imgsz for row in rows], "cpu")
    rows = [replace(row, latency_ms=taken) for row, taken in zip(rows, times, strict=True)]
    settings: dict[str, Any] = {"images": seen[0].image_count, "imgsz": imgsz, "batch": batch, "seed": seed}
    if finetune:
        settings["finetune"] = finetune
    if count != "params":
        settings["target"] = COUNTED[count]
    if subsets > 1:
        files = [file for sample in seen for file in sample.files]
        settings["subsets"] = f"{subsets}, {'disjoint' if len(set(files)) == len(files) else 'overlapping'}"
    return Comparison(detector.source, str(data), settings, (*rows, *failed))


@dataclass(frozen=True)
class _Bench:
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
    same: SameImages

    @cached_property
    def whole(self) -> float:
        """What is counted of the unpruned network."""
        return parameters(self.model) if self.count == "params" else gflops(self.model, self.imgsz)

    def pruned(self, row: Row, prune: Method) -> tuple[Row, nn.Module]:
        """The row's mean over all samples, and the network that the first of them led to."""
        runs: list[Row] = []
        networks: list[nn.Module] = []
        what = f"{row.method} at {row.target:g}"
        for number, sample in enumerate(self.samples):
            self.told.stage(what + (f", subset {number + 1}" if len(self.samples) > 1 else ""), None)
            start = time.perf_counter()
            if row.method == IMGSZ:
                row = replace(row, imgsz=size_for(self.model, self.imgsz, row.target))
            small = prune(self.model, self.graph, Target(self.count, row.target), sample, self.seed + number)
            seconds = time.perf_counter() - start
            if self.finetune:
                self.told.stage(f"{what}, fine-tune {self.finetune} epochs", None)
                how: dict[str, Any] = {"imgsz": self.imgsz, "batch": self.batch, "device": self.device}
                small = tuned(small, self.data, epochs=self.finetune, seed=self.seed + number, **how)
            runs.append(self.measured(replace(row, seconds=seconds), small))
            networks = networks or [small]
            if len(self.samples) > 1:
                self.tell(runs[-1])
        return mean_of(runs), networks[0]

    def measured(self, row: Row, network: nn.Module) -> Row:
        size = row.imgsz or self.imgsz
        accuracy = validate(network, self.data, imgsz=size, batch=self.batch, device=self.device)
        self.same.check(accuracy.images)
        params, operations = parameters(network), gflops(network, size)
        share = (params if self.count == "params" else operations) / self.whole
        return replace(
            row, params=params, share=share, gflops=operations, map50_95=accuracy.map50_95, map50=accuracy.map50
        )
