"""Methods of pruning at equal parameters, on the same images, without training: a table and a plot."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from seqprune.accurate import accurate_plan, repaired
from seqprune.budget import Spread, by_scores
from seqprune.criteria import CRITERIA, FloatArray, Scoring, scores
from seqprune.errors import InputError, SeqPruneError
from seqprune.graph.channels import BoolArray, Bundle, ChannelGraph
from seqprune.observe.batch import LabelledImages
from seqprune.observe.streaming import BlockStream
from seqprune.plan import PrunePlan
from seqprune.price import Price
from seqprune.recover import Recover
from seqprune.report.plot import document, key, lines, table
from seqprune.run import Listener, trace_detector
from seqprune.sequential import Match, Settings, prune_sequentially
from seqprune.surgery import compact, mask
from seqprune.target import Target
from seqprune.yolo import DetectionImages
from seqprune.yolo.blocks import blocks_of
from seqprune.yolo.gradients import loss_gradients
from seqprune.yolo.load import load
from seqprune.yolo.peers import PEERS, peer
from seqprune.yolo.predict import predict
from seqprune.yolo.profile import gflops, latencies_ms, parameters
from seqprune.yolo.validate import validate

Method = Callable[[nn.Module, ChannelGraph, float, DetectionImages, int], nn.Module]
"""Given a network, its graph, the share of parameters that stays, training images and a seed, the pruned network: a new
one, smaller, in inference mode; the one it was given stays as it is."""
UNPRUNED = "unpruned"
FAR = 0.05
"""Of a target: so much more is not equal any more."""


def by_criterion(
    name: str,
    model: nn.Module,
    graph: ChannelGraph,
    target: float,
    images: LabelledImages,
    seed: int,
    *,
    spread: Spread = "uniform",
) -> nn.Module:
    """Plain top-k by a criterion."""
    gradients = loss_gradients(model, images) if name == "taylor" else None
    scored = scores(name, Scoring(model, graph, seed, gradients))
    removed = by_scores(graph, Price(model, graph), scored, target, spread=spread)
    return compact(model, PrunePlan.from_removed(graph, removed), graph)


def by_clusters(
    model: nn.Module,
    graph: ChannelGraph,
    target: float,
    images: LabelledImages,
    seed: int,
    *,
    match: Match = "once",
) -> nn.Module:
    """The seed engine: of every cluster of channels that separate the classes alike, the one with the largest weights.

    Its keep ratio is the one at which as many parameters stay, so that against ``topk-l1`` only the choice differs.
    """
    ratio = ratio_for(model, graph, target)
    structure = blocks_of(model)
    stream = None if structure is None else BlockStream(structure)
    plan, masked, steps = prune_sequentially(
        mask(model, PrunePlan((), graph.inputs), graph),
        graph,
        [layer.name for layer in graph.layers],
        images,
        len(model.names),  # type: ignore[arg-type]
        settings=Settings(keep=ratio, match=match, seed=seed),
        predict=predict,
        stream=stream,
    )
    if stream is not None:
        stream.reset()
    small = compact(masked, plan, graph)
    if (left := parameters(small) / parameters(model)) > target * (1 + FAR):
        why = next((step.reason for step in steps if step.status == "skipped"), "no layer was skipped")
        raise SeqPruneError(f"clusters leave {left:.3f} of the parameters, {target:g} was asked for; {why}")
    return small


def ratio_for(model: nn.Module, graph: ChannelGraph, target: float, scored: FloatArray | None = None) -> float:
    """The keep ratio of the seed engine at which ``target`` of the parameters stays, by bisection.

    How many channels a ratio leaves does not depend on which, so no image is looked at.
    """
    price = Price(model, graph)
    whole = price.total(np.zeros(graph.group_count, bool))
    bundles = [graph.bundles(layer.name) for layer in graph.layers]
    scored = np.zeros(graph.group_count) if scored is None else scored

    def share(ratio: float) -> float:
        return price.total(at_ratio(graph, bundles, ratio, scored)) / whole

    low, high = 1e-3, 1.0
    for _ in range(10):
        middle = (low + high) / 2
        low, high = (low, middle) if share(middle) > target else (middle, high)
    return min(low, high, key=lambda ratio: abs(share(ratio) - target))


def at_ratio(graph: ChannelGraph, bundles: Sequence[Sequence[Bundle]], ratio: float, scored: FloatArray) -> BoolArray:
    """``[group_count]``: as many groups removed, layer by layer, as the seed engine would; those that score least."""
    removed, decided = np.zeros(graph.group_count, bool), np.zeros(graph.group_count, bool)
    for together in bundles:
        now = np.zeros_like(decided)
        for bundle in together:
            groups = bundle.groups[~decided[bundle.groups]]
            best_first = groups[np.argsort(-scored[groups], kind="stable")]
            removed[best_first[max(1, round(ratio * len(groups))) :]] = True
            now[groups] = True
        if now.any():
            removed = graph.legalise(removed, scored, now)
            decided |= now
    return removed


def by_ratio(
    name: str, model: nn.Module, graph: ChannelGraph, target: float, _images: LabelledImages, seed: int
) -> nn.Module:
    """Plain top-k by a criterion in place of the clusters: of every layer the same number stays as ``clusters`` leaves.

    Not what :func:`by_criterion` does, which rounds counts up: at 0.9 it leaves layers of 16 channels whole, where the
    seed engine takes one, and the front of a network bears little.
    """
    scored = scores(name, Scoring(model, graph, seed))
    bundles = [graph.bundles(layer.name) for layer in graph.layers]
    removed = at_ratio(graph, bundles, ratio_for(model, graph, target, scored), scored)
    return compact(model, PrunePlan.from_removed(graph, removed), graph)


def by_peer(
    name: str, model: nn.Module, _graph: ChannelGraph, target: float, images: LabelledImages, seed: int
) -> nn.Module:
    """Torch-Pruning, which makes a graph of its own."""
    return peer(name, model, target, images, seed)


def by_accurate(
    recover: Recover,
    model: nn.Module,
    graph: ChannelGraph,
    target: float,
    images: DetectionImages,
    _seed: int,
) -> nn.Module:
    """The preset ``accurate``: channels chosen over the whole network, and what is left fitted anew."""
    size = max(next(iter(images)).images.shape[-2:])
    plan = accurate_plan(model, graph, images, Target("params", target), imgsz=size)
    masked = mask(model, plan, graph)
    if recover != "none":
        structure = blocks_of(model)
        streams = () if structure is None else (BlockStream(structure), BlockStream(structure))
        masked, _ = repaired(model, masked, plan, graph, images, recover, streams=streams)
        for stream in streams:
            stream.reset()
    return compact(masked, plan, graph)


METHODS: dict[str, Method] = {
    "accurate": partial(by_accurate, "ls"),
    "accurate-unrepaired": partial(by_accurate, "none"),
    "clusters": by_clusters,
    "topk-l1": partial(by_ratio, "l1"),
    "topk-random": partial(by_ratio, "random"),
    **{f"tp-{name}": partial(by_peer, name) for name in PEERS},
}
"""Beside them every criterion is one, with the same ratio in all layers; ``NAME-global`` with one threshold."""


def method(name: str) -> Method:
    """The method of that name.

    Raises:
        InputError: there is none.
    """
    if name in METHODS:
        return METHODS[name]
    criterion = name.removesuffix("-global")
    if criterion not in CRITERIA:
        known = ", ".join((*CRITERIA, *METHODS))
        raise InputError(f"there is no method {name!r}: choose {known}, or a criterion with -global behind it")
    return partial(by_criterion, criterion, spread="uniform" if criterion == name else "global")


@dataclass(frozen=True)
class Row:
    """One method at one target; what was not measured is ``None``.

    Attributes:
        method: its name, or ``unpruned``.
        target: share of the parameters that was asked for.
        params: parameters that stay.
        share: the share they are.
        gflops: of one image.
        latency_ms: of one image, timed in turns with all others.
        map50_95, map50: accuracy on the val images.
        seconds: that the pruning took.
        reason: why the method gave nothing; empty where it did.
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


@dataclass(frozen=True)
class Comparison:
    """Rows, the unpruned network first, then target by target."""

    model: str
    data: str
    settings: dict[str, Any]
    rows: tuple[Row, ...]

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"

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
                number(row.map50_95, ".4f"),
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
        plots = []
        for title, unit, attribute in (
            ("Over parameters", "share of the parameters", "share"),
            ("Over operations", "GFLOPs of one image", "gflops"),
            ("Over time", "milliseconds for one image", "latency_ms"),
        ):
            series: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
            for row in rest:
                series[row.method].append((getattr(row, attribute), row.map50_95 or 0.0))
            for its in series.values():
                its.append((getattr(whole, attribute), whole.map50_95 or 0.0))
            plots.append(lines(title, unit, "mAP50-95", series))
        about = f"{self.model} on {self.data}; " + ", ".join(f"{name} {value}" for name, value in self.settings.items())
        pictures = f'{key(names)}<div class="plots">{"".join(plots)}</div>'
        return document("Methods at equal parameters", about, pictures, table(*self.cells()))

    def write(self, folder: Path) -> None:
        """Writes ``compare.json``, ``compare.md`` and ``compare.html`` into a folder that exists."""
        for ending, text in (("json", self.to_json()), ("md", self.to_markdown()), ("html", self.to_html())):
            (folder / f"compare.{ending}").write_text(text, encoding="utf-8")


def compare(
    model: str | Path | nn.Module | Any,
    data: str | Path,
    *,
    targets: Sequence[float],
    methods: Sequence[str],
    images: int | None = 128,
    imgsz: int = 640,
    batch: int = 16,
    device: str | int = "cpu",
    seed: int = 0,
    listener: Listener | None = None,
    on_row: Callable[[Row], None] | None = None,
) -> Comparison:
    """Prunes with each method to each target and measures what is left, without training.

    Args:
        model: weights, an ``ultralytics.YOLO`` or its network; never changed.
        data: dataset YAML: methods look at ``train`` images, accuracy is measured on ``val`` images.
        targets: shares of the parameters that stay.
        methods: names, see :func:`method`.
        images: training images, a seeded sample, the same for every method; all of them where None.
        imgsz, batch: of calibration and validation.
        device: where accuracy is measured; pruning and timing are on the CPU.
        seed: of every random choice.
        listener: told what is going on.
        on_row: called with each row; its latency is measured at the end.

    A method that fails gives a row with its reason, and the others go on.

    Raises:
        InputError: weights, data, names or numbers that cannot be used.
    """
    chosen = {name: method(name) for name in methods}
    if not targets or not chosen or not all(0 < target < 1 for target in targets):
        raise InputError("a comparison needs a method and a target: give shares of the parameters in (0, 1)")
    told = listener or Listener()
    detector = load(model)
    graph = trace_detector(detector.model)
    seen = DetectionImages(
        data, imgsz=imgsz, batch=batch, images=images, stride=detector.stride, names=detector.names, seed=seed
    )
    whole = parameters(detector.model)

    def measured(row: Row, network: nn.Module) -> Row:
        accuracy = validate(network, data, imgsz=imgsz, batch=batch, device=str(device))
        count = parameters(network)
        return replace(
            row,
            params=count,
            share=count / whole,
            gflops=gflops(network, imgsz),
            map50_95=accuracy.map50_95,
            map50=accuracy.map50,
        )

    tell = on_row or (lambda _row: None)
    told.stage("measure unpruned", None)
    rows, networks = [measured(Row(UNPRUNED, 1.0), detector.model)], [detector.model]
    tell(rows[0])
    failed = []
    for target in targets:
        for name, prune in chosen.items():
            told.stage(f"{name} at {target:g}", None)
            start, row = time.perf_counter(), Row(name, target)
            try:
                small = prune(detector.model, graph, target, seen, seed)
                row = replace(row, seconds=time.perf_counter() - start)
                rows.append(measured(row, small))
                networks.append(small)
                tell(rows[-1])
            except SeqPruneError as error:
                failed.append(replace(row, reason=str(error)))
                tell(failed[-1])
    told.stage("measure latency", None)
    times = latencies_ms(networks, imgsz, "cpu")
    rows = [replace(row, latency_ms=taken) for row, taken in zip(rows, times, strict=True)]
    settings = {"images": seen.image_count, "imgsz": imgsz, "batch": batch, "seed": seed}
    return Comparison(detector.source, str(data), settings, (*rows, *failed))
