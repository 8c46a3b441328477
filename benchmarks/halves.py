"""Where settings of the preset ``accurate`` are chosen: train images alone, one half to fit to, the other to measure.

``python -m benchmarks.halves MODEL --data YAML --target flops=0.8`` calibrates on the first half by file name,
measures on the second, and the other way round with ``--swap``. mAP moves by ±0.01 for nothing, so beside it stand the
same with every class counted by its objects, which moves less, and two distances to the unpruned network's detections;
where the loss sits is asked by putting parts of both networks together.
``--set MODULE.NAME=NUMBER`` tries another value of a constant, as ``seqprune.yolo.task.probe.BOX_WEIGHT=24``.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn

from seqprune.budget.factoring import share_left
from seqprune.budget.target import Target
from seqprune.engine.presets import BY, ROUND_TO
from seqprune.errors import InputError, SeqPruneError
from seqprune.measure.methods import accurately
from seqprune.observe.inputs import as_input
from seqprune.surgery import compact
from seqprune.yolo.data.images import DetectionImages
from seqprune.yolo.data.subset import listed
from seqprune.yolo.files.load import LoadedDetector, load
from seqprune.yolo.task.judge import apart
from seqprune.yolo.task.probe import LEAST, object_weights
from seqprune.yolo.task.task import YoloTask
from seqprune.yolo.task.tracing import image_channels, trace_detector
from seqprune.yolo.task.validate import Metrics, validate

Join = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], None]
"""Given inputs, a network's detections and the other's: puts something of the latter into the former."""
STRIDES = (8, 16, 32)
SURE = (0.0, 0.01, 0.05, 0.25, 1.0)
"""What the unpruned network's probabilities are split by."""


def distances(pairs: Iterable[tuple[torch.Tensor, torch.Tensor]], classes: int) -> tuple[float, float]:
    """How far detections are from wanted ones: divergence of classes in nats, squared error of boxes over their sides.

    Args:
        pairs: detections found and wanted, batch by batch, ``[B, 4 + classes, cells]``: centre, width and height in
            pixels, then probabilities.
        classes: how many there are.

    Returns:
        Means over objects, weighted as :func:`seqprune.yolo.task.probe.object_weights` weighs the wanted ones; the
        Bernoulli divergences of all classes are added, and the squares of all four numbers of a box. Zeros without an
        object.
    """
    total, divergence, error = LEAST, 0.0, 0.0
    for found, wanted in pairs:
        worth = object_weights(wanted, classes)
        more, off, _ = apart(found, wanted, worth, classes)
        total, divergence, error = total + float(worth.sum()), divergence + float(more), error + float(off)
    return divergence / total, error / total


def together(model: nn.Module, other: nn.Module, join: Join) -> Callable[[], None]:
    """Lets ``model`` return detections with something of the other network's in them; returns what ends it."""

    def hook(_module: nn.Module, inputs: tuple[torch.Tensor], output: tuple[Any, ...]) -> tuple[Any, ...]:
        own = output[0].clone()
        join(inputs[0], own, other(inputs[0])[0])
        return (own, *output[1:])

    return model.register_forward_hook(hook).remove


def cells_of(inputs: torch.Tensor) -> list[slice]:
    """The cells of each map, finest first, among the detections for ``inputs``."""
    height, width = inputs.shape[-2:]
    ends = [0]
    for stride in STRIDES:
        ends.append(ends[-1] + (height // stride) * (width // stride))
    return [slice(start, end) for start, end in pairwise(ends)]


def unpruned_boxes(_inputs: torch.Tensor, own: torch.Tensor, other: torch.Tensor) -> None:
    own[:, :4] = other[:, :4]


def unpruned_classes(_inputs: torch.Tensor, own: torch.Tensor, other: torch.Tensor) -> None:
    own[:, 4:] = other[:, 4:]


def pruned_only(level: int) -> Join:
    """All maps but one are the unpruned network's."""

    def join(inputs: torch.Tensor, own: torch.Tensor, other: torch.Tensor) -> None:
        for number, cells in enumerate(cells_of(inputs)):
            if number != level:
                own[:, :, cells] = other[:, :, cells]

    return join


def unpruned_where(least: float, most: float) -> Join:
    """The unpruned network's in cells of whose likeliest class it is sure by more than ``least``, up to ``most``."""

    def join(_inputs: torch.Tensor, own: torch.Tensor, other: torch.Tensor) -> None:
        sure = other[:, 4:].amax(1, keepdim=True)
        own.copy_(torch.where((sure > least) & (sure <= most), other, own))

    return join


def adjust(settings: Sequence[str]) -> None:
    """Gives constants of the package other values, ``MODULE.NAME=NUMBER``.

    Raises:
        InputError: there is no such constant, or no number.
    """
    for setting in settings:
        path, _, value = setting.partition("=")
        module, _, name = path.rpartition(".")
        try:
            home = importlib.import_module(module)
            old = getattr(home, name)
            setattr(home, name, type(old)(value))
        except (ImportError, AttributeError, ValueError, TypeError) as error:
            raise InputError(f"{setting!r} sets nothing ({error}): write MODULE.NAME=NUMBER of a constant") from error


def halves(data: str, detector: LoadedDetector, imgsz: int) -> list[list[Path]]:
    """The train images by file name, the first half and the second."""
    files = sorted(DetectionImages(data, imgsz=imgsz, stride=detector.stride, names=detector.names).files)
    return [files[: len(files) // 2], files[len(files) // 2 :]]


def measure(
    detector: LoadedDetector,
    fit: Path,
    test: Path,
    target: Target,
    imgsz: int,
    round_to: int,
    parts: bool,
    by: tuple[str, ...] = BY,
) -> list[str]:
    """Prunes by one half and says, line by line, what the other half says of it."""
    model, graph = detector.model, trace_detector(detector.model)
    images, others = (
        DetectionImages(half, imgsz=imgsz, batch=16, stride=detector.stride, names=detector.names)
        for half in (fit, test)
    )
    task = YoloTask(images, detector.names, imgsz)
    pruned, plan = accurately(model, graph, task, target, round_to=round_to, by=by)

    def accuracy(network: nn.Module) -> Metrics:
        return validate(network, test, imgsz=imgsz, batch=16)

    whole = accuracy(model)
    share = share_left(model, compact(pruned, plan, None if plan.factors else graph), target.kind, task.example(model))
    lines = [f"{layer.name} {len(layer.keep)}/{layer.channels}" for layer in plan.layers]
    lines += [f"{factor.block} {factor.first} first, {factor.rank} between" for factor in plan.factors]

    def line(name: str, found: Metrics) -> str:
        by_objects = f"by objects {found.by_objects:.4f} = {found.by_objects / whole.by_objects:.1%}"
        return f"{name}: {found.map50_95:.4f} = {found.map50_95 / whole.map50_95:.1%}, {by_objects}"

    lines.append(f"{target.kind} {share:.3f}")
    lines.append(line("unpruned", whole))

    with torch.no_grad():
        inputs = (as_input(batch.images, model) for batch in others)
        classes, boxes = distances(((pruned(x)[0].float(), model(x)[0].float()) for x in inputs), len(detector.names))
    lines.append(f"{line('pruned', accuracy(pruned))}, classes {classes:.4f}, boxes {boxes:.5f}")
    joined: dict[str, Join] = {"with unpruned boxes": unpruned_boxes, "with unpruned classes": unpruned_classes}
    joined.update({f"pruned at stride {stride} only": pruned_only(at) for at, stride in enumerate(STRIDES)})
    joined.update(
        {f"with unpruned cells of {low} to {high}": unpruned_where(low, high) for low, high in pairwise(SURE)}
    )
    for name, join in joined.items() if parts else ():
        end = together(pruned, model, join)
        lines.append(line(name, accuracy(pruned)))
        end()
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.halves", description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--data", required=True)
    parser.add_argument("--target", required=True, help="params=0.9, flops=0.8")
    parser.add_argument("--imgsz", type=int, default=640)
    parser.add_argument("--round-to", type=int, default=ROUND_TO)
    parser.add_argument("--by", default=",".join(BY), help="moves: channels, factors")
    parser.add_argument("--swap", action="store_true", help="fit to the second half")
    parser.add_argument("--parts", action="store_true", help="ask where the loss sits")
    parser.add_argument("--set", action="append", default=[], metavar="MODULE.NAME=NUMBER")
    given = parser.parse_args(arguments)
    try:
        adjust(given.set)
        target, detector = Target.parse(given.target), load(given.model)
        first, second = halves(given.data, detector, given.imgsz)
        fitted, others = (second, first) if given.swap else (first, second)
        about = detector.names, image_channels(detector.model)
        with listed(fitted, *about) as fit, listed(others, *about) as test:
            by = tuple(given.by.split(","))
            for text in measure(detector, fit, test, target, given.imgsz, given.round_to, given.parts, by):
                print(text)  # noqa: T201 - a program
    except SeqPruneError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
