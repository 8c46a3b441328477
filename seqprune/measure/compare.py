"""Methods of pruning at equal parameters or operations, on the same images, without training: a table and a plot."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from seqprune.atomic import write_text
from seqprune.engine.listener import Listener
from seqprune.engine.run import fingerprint
from seqprune.engine.state import State
from seqprune.errors import InputError
from seqprune.measure.bench import COUNTED, Bench, Row
from seqprune.measure.methods import method
from seqprune.report.plot import document, key, lines, table
from seqprune.yolo.data.subset import train_subsets
from seqprune.yolo.files.load import load
from seqprune.yolo.task.measured import SameImages
from seqprune.yolo.task.task import YoloTask
from seqprune.yolo.task.tracing import trace_detector


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
        """Writes ``compare.html``, ``compare.md`` and ``compare.json`` into a folder that exists."""
        for ending, text in (("html", self.to_html()), ("md", self.to_markdown()), ("json", self.to_json())):
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
    state: State | None = None,
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
        on_row: called with each row, and with what each of several subsets gave before.
        state: rows of an earlier comparison of the same that was ended; each row is kept there as it comes.

    A method that fails gives a row with its reason, and the others go on.

    Raises:
        InputError: weights, data, names or numbers that cannot be used, or others than the state was begun with.
        LostError: images are gone that were there.
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
    tell, state = on_row or (lambda _row: None), state or State()
    bench = Bench(
        detector.model,
        graph,
        tasks,
        data,
        count,
        imgsz,
        batch,
        str(device),
        seed,
        finetune,
        told,
        tell,
        state,
        SameImages(told.warning),
    )
    state.same("settings", repr((targets, list(methods), bench.about)), "what is asked for")
    state.same("network", fingerprint(detector.model), "the network")
    state.same("images", " ".join(sample.fingerprint() for sample in seen), "the images")
    rows: list[Row] = [bench.unpruned]
    failed: list[Row] = []
    tell(rows[0])
    for target in targets:
        for name, prune in chosen.items():
            row = bench.pruned(Row(name, target), prune)
            (failed if row.reason else rows).append(row)
            tell(row)
    settings: dict[str, Any] = {"images": seen[0].image_count, "imgsz": imgsz, "batch": batch, "seed": seed}
    if finetune:
        settings["finetune"] = finetune
    if count != "params":
        settings["target"] = COUNTED[count]
    if subsets > 1:
        files = [file for sample in seen for file in sample.files]
        settings["subsets"] = f"{subsets}, {'disjoint' if len(set(files)) == len(files) else 'overlapping'}"
    return Comparison(detector.source, str(data), settings, (*rows, *failed))
