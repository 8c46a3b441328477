"""What pruning one layer alone costs, at several ratios: where a network bears removal, and where it does not."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from seqprune.atomic import write_text
from seqprune.budget.criteria import FROM_IMAGES, FloatArray, scores
from seqprune.budget.price import Price
from seqprune.budget.spread import pools
from seqprune.engine.kinds import checked
from seqprune.engine.listener import Listener, heard
from seqprune.engine.options import Opening
from seqprune.engine.portrait import overall
from seqprune.engine.run import fingerprint
from seqprune.engine.scoring import scoring_for
from seqprune.engine.sequential import front_to_back
from seqprune.engine.settings import Choose, Look, Open, Train
from seqprune.engine.state import State, began
from seqprune.engine.subject import Subject
from seqprune.errors import DataError, InputError
from seqprune.graph.channels import BoolArray, ChannelGraph, IntArray
from seqprune.observe.device import as_device
from seqprune.plain import is_share, printable
from seqprune.plan import PrunePlan
from seqprune.report.plot import document, dots, key, table
from seqprune.report.record import titled
from seqprune.sources.opening import opened
from seqprune.sources.samples import measured_on
from seqprune.surgery import compact

if TYPE_CHECKING:
    from typing_extensions import Unpack

RATIOS = (0.5, 0.25)
CALIBRATION = 128
"""Train images that a criterion looks at."""


@dataclass(frozen=True)
class Point:
    """One layer at one ratio, all others whole.

    Attributes:
        layer: module path.
        members: the layers that lose channels with it, itself included, front to back.
        ratio: share of channels that was to stay.
        kept: channels of ``layer`` that stay.
        channels: those it has.
        params: share of the network's parameters that stay.
        accuracy: what is left of it.
        drop: what it lost of the unpruned network's.
    """

    layer: str
    members: tuple[str, ...]
    ratio: float
    kept: int
    channels: int
    params: float
    accuracy: float
    drop: float


@dataclass(frozen=True)
class Sensitivity:
    """All points of one network, front to back.

    Attributes:
        model, data: what was measured.
        settings: criterion, ratios, image size, number of images and seed.
        metric: which accuracy was measured.
        unpruned: that of the unpruned network.
        points: those of a layer together, ratios as they were given.
    """

    model: str
    data: str
    settings: dict[str, Any]
    metric: str
    unpruned: float
    points: tuple[Point, ...]

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"

    @property
    def caption(self) -> str:
        return f"unpruned {titled(self.metric)} {self.unpruned:.4f}"

    def to_html(self) -> str:
        ratios = [f"{ratio:g} of the channels" for ratio in self.settings["ratios"]]
        drops: dict[str, dict[str, float]] = {}
        for point in self.points:
            drops.setdefault(point.layer, {})[f"{point.ratio:g} of the channels"] = point.drop
        about = f"{self.model} on {self.data}, {self.caption}; "
        about += ", ".join(f"{name} {value}" for name, value in self.settings.items())
        picture = key(ratios) + dots(f"drop of {titled(self.metric)}", drops, ratios)
        return document("One layer pruned at a time", about, picture, table(*self.rows()))

    def rows(self) -> tuple[list[str], list[list[str]]]:
        """Head and cells of the table."""
        head = ["layer", "kept", "channels", "parameters", titled(self.metric), "drop"]
        return head, [
            [
                p.layer + (f" and {len(p.members) - 1} more" if len(p.members) > 1 else ""),
                f"{p.ratio:g}",
                f"{p.kept}/{p.channels}",
                f"{p.params:.3f}",
                f"{p.accuracy:.4f}",
                f"{p.drop:+.4f}",
            ]
            for p in self.points
        ]

    def write(self, path: str | Path) -> tuple[Path, Path]:
        """Writes the numbers to ``path`` and the plot beside it, ending in ``.html``.

        Raises:
            InputError: one of them exists, or cannot be written.
        """
        path = Path(path)
        page = path.with_suffix(".html")
        for file, text in ((page, self.to_html()), (path, self.to_json())):
            try:
                if os.path.lexists(file):
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
                write_text(file, text)
            except OSError as error:
                raise InputError(f"{file} cannot be written ({error.strerror}): give another --out") from error
        return path, page


def sensitivity(
    model: str | Path | nn.Module | Any,
    data: Any,
    *,
    layers: Sequence[str] | None = None,
    ratios: Sequence[float] = RATIOS,
    criterion: str = "l2",
    images: int | None = None,
    imgsz: int | None = None,
    batch: int = 16,
    device: str | int = "cpu",
    seed: int = 0,
    listener: Listener | None = None,
    state: State | None = None,
    **how: Unpack[Opening],
) -> Sensitivity:
    """Prunes one layer at a time, with what must go along, and measures what is left.

    Args:
        model, data: as :func:`seqprune.prune` takes them; accuracy is measured on ``val``, the first one is told.
        layers: module paths; all prunable layers where left out. Those that stand for the same channels are measured
            once, by the first of them.
        ratios: shares of the channels that stay, in (0, 1).
        criterion: which channels stay, see :mod:`seqprune.budget.criteria`; one that looks at images is given a seeded
            sample of the ``train`` images.
        images: val images to measure on, a seeded sample; all of them where left out.
        imgsz, batch, device: see :class:`seqprune.engine.settings.Look`.
        seed: of every random choice.
        listener: told what is going on.
        state: what an earlier run of the same measured before it was ended; each point is kept there as it comes.
        how: see :class:`seqprune.engine.settings.Open`.

    Raises:
        InputError: weights, data, names or numbers that cannot be used, or others than the state was begun with.
    """
    if not (isinstance(ratios, Sequence) and ratios and all(map(is_share, ratios))):
        shown = ", ".join(map(str, ratios)) or "none" if isinstance(ratios, Sequence) else ratios
        raise InputError(f"ratios {printable(shown)}: give shares that stay, in (0, 1)")
    layers = checked("layers", layers, "Sequence[str]")
    told, state = heard(listener), began(state)
    look = Look(CALIBRATION, imgsz, batch, device)
    asked = look, Choose("fast", criterion=criterion, seed=seed), Train(), Open(**how)
    subject, look = opened(model, data, *asked, device=as_device(str(device)), told=told)
    graph = subject.graph
    names = front_to_back(graph, layers if layers else [layer.name for layer in graph.layers])
    state.same("settings", repr((names, list(ratios), criterion, images, look.imgsz, batch, seed)), "what is asked for")
    state.same("network", fingerprint(subject.model), "the network")
    if criterion in FROM_IMAGES:
        told.stage(f"score by {criterion}", None)
    scored = scores(criterion, scoring_for(criterion, subject.model, graph, subject.task, seed))
    with measured_on(subject.task, images, seed) as task:
        metric, whole, points = _points(replace(subject, task=task), units(graph, names), ratios, scored, told, state)
    settings: dict[str, Any] = {"criterion": criterion, "ratios": list(ratios), "imgsz": look.imgsz}
    settings |= {"images": images or "all", "seed": seed}
    return Sensitivity(subject.source, subject.data, settings, metric, whole, points)


def _points(
    subject: Subject,
    found: Sequence[tuple[str, IntArray]],
    ratios: Sequence[float],
    scored: FloatArray,
    told: Listener,
    state: State,
) -> tuple[str, float, tuple[Point, ...]]:
    """What accuracy is called, that of the whole network, and what is left of it, unit by unit."""
    graph, price, points = subject.graph, Price(subject.model, subject.graph), []

    def unpruned() -> dict[str, float]:
        told.stage("measure unpruned", None)
        return _first(subject.task.accuracy(subject.model))

    def left_by(plan: PrunePlan) -> float:
        return _first(subject.task.accuracy(compact(subject.model, plan, graph)))[metric]

    ((metric, whole),) = state.plain("unpruned", unpruned).items()
    for number, (name, groups) in enumerate(found, 1):
        told.stage(f"{number} of {len(found)}: {name}", None)
        for ratio in ratios:
            removed = keep_ratio(graph, scored, groups, ratio)
            plan = PrunePlan.from_removed(graph, removed)
            left = state.number(f"left-{ratio!r}-{name}", partial(left_by, plan))
            layer = graph.by_name[name]
            points.append(
                Point(
                    layer=name,
                    members=tuple(pruned.name for pruned in plan.layers),
                    ratio=ratio,
                    kept=int((~removed[layer.groups]).sum()),
                    channels=layer.channels,
                    params=price.share(removed),
                    accuracy=left,
                    drop=whole - left,
                )
            )
    return metric, whole, tuple(points)


def _first(accuracy: Mapping[str, float]) -> dict[str, float]:
    """The one that is told.

    Raises:
        DataError: none was measured.
    """
    if not accuracy:
        raise DataError("accuracy is not measured: give val images with classes, or evaluate=")
    return dict([next(iter(overall(accuracy).items()))])


def units(graph: ChannelGraph, names: Sequence[str]) -> list[tuple[str, IntArray]]:
    """The channel groups that are decided together with each layer; those of several layers once, by the first."""
    found: dict[bytes, tuple[str, IntArray]] = {}
    for name in names:
        groups = np.sort(np.concatenate([bundle.groups for bundle in graph.bundles(name)]))
        found.setdefault(groups.tobytes(), (name, groups))
    return list(found.values())


def keep_ratio(graph: ChannelGraph, scored: FloatArray, groups: IntArray, ratio: float) -> BoolArray:
    """``[group_count]``, what to remove so that ``ratio`` of ``groups`` stays, at least one of each pool, legally."""
    mine = np.zeros(graph.group_count, bool)
    mine[groups] = True
    removed = np.zeros_like(mine)
    for pool in pools(graph, mine):
        worst_first = pool[np.argsort(scored[pool], kind="stable")]
        removed[worst_first[: len(pool) - max(1, round(ratio * len(pool)))]] = True
    return graph.legalise(removed, scored, mine)
