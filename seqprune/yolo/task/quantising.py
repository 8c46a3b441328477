"""An exported network in eight bits, by the runtime's own tool.

Convolutions alone are quantised, and those that no other one follows stay as they are: what a head returns is decided
by small differences. (R. Krishnamoorthi, "Quantizing deep convolutional networks for efficient inference", 2018.)
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn
from torch.nn import functional

from seqprune.aside import hushed
from seqprune.errors import ModelError
from seqprune.observe.batch import Images
from seqprune.observe.inputs import tensors
from seqprune.yolo.files.contained import one_line
from seqprune.yolo.task.tracing import grey_image

Array = npt.NDArray[np.float32]


def quantised(
    exported: Path,
    runtime: str,
    images: Images,
    model: nn.Module,
    imgsz: int,
    folder: Path,
    most: int | None = None,
) -> Path:
    """Writes an exported network in eight bits.

    Args:
        exported: what Ultralytics exported for that runtime.
        runtime: of ``QUANTISING``.
        images: to calibrate on.
        model: the network that was exported, which says what it takes.
        imgsz: side of the images that it was exported for.
        folder: where to write.
        most: images at most; a few are enough where it is time that is asked for.

    Returns:
        The file or folder, which plain Ultralytics opens.

    Raises:
        ModelError: the tool cannot quantise it.
    """
    feed = list(islice(squares(images, model, imgsz), most))
    try:
        with warnings.catch_warnings(), _quiet(), hushed():
            warnings.simplefilter("ignore")
            return _QUANTISE[runtime](exported, feed, folder)
    except (RuntimeError, ValueError, TypeError, KeyError, OSError) as error:
        raise ModelError(f"{runtime} cannot bring this network to eight bits ({one_line(error)})") from error


def squares(images: Images, model: nn.Module, imgsz: int) -> Iterator[Array]:
    """``[1, channels, side, side]`` of every image, grey around it, as an exported network is given it; one of more
    pixels is made smaller.
    """
    blank = grey_image(model, imgsz).numpy() * 0 + 114 / 255
    for batch in images:
        given = next(iter(tensors(batch.input(model))))
        if (factor := blank.shape[-1] / max(given.shape[2:])) < 1:
            given = functional.interpolate(given, scale_factor=factor, mode="bilinear", antialias=True)
        for image in given.numpy():
            square, (height, width) = blank.copy(), image.shape[1:]
            top, left = (square.shape[2] - height) // 2, (square.shape[3] - width) // 2
            square[0, :, top : top + height, left : left + width] = image
            yield square


def _onnxruntime(exported: Path, feed: list[Array], folder: Path) -> Path:
    import onnx
    from onnxruntime import quantization

    made = folder / f"{exported.stem}_int8.onnx"
    graph = onnx.load(str(exported))
    (given,) = [each.name for each in graph.graph.input]
    reads = {output: node for node in graph.graph.node for output in node.output}
    followed = _before(
        [node.name for node in graph.graph.node if node.op_type == "Conv"],
        {node.name: [reads[name].name for name in node.input if name in reads] for node in graph.graph.node},
    )
    convolutions = {node.name for node in graph.graph.node if node.op_type == "Conv"}

    class Feed(quantization.CalibrationDataReader):  # type: ignore[misc]
        """One image after the other."""

        def __init__(self) -> None:
            self.rest = iter(feed)

        def get_next(self) -> dict[str, Array] | None:
            image = next(self.rest, None)
            return None if image is None else {given: image}

    quantization.quantize_static(
        str(exported),
        str(made),
        Feed(),
        op_types_to_quantize=["Conv"],
        nodes_to_exclude=sorted(convolutions - followed),
        per_channel=True,
    )
    quantised_ = onnx.load(str(made))
    if not quantised_.metadata_props:  # by these Ultralytics knows names and sizes
        quantised_.metadata_props.extend(graph.metadata_props)
        onnx.save(quantised_, str(made))
    return made


def _openvino(exported: Path, feed: list[Array], folder: Path) -> Path:
    import nncf
    import openvino

    made = folder / exported.name.replace("_openvino_model", "_int8_openvino_model")
    made.mkdir(exist_ok=True)
    network = openvino.Core().read_model(next(iter(sorted(exported.glob("*.xml")))))
    nodes = list(network.get_ordered_ops())
    name: Callable[[Any], str] = lambda node: node.get_friendly_name()  # noqa: E731
    reads = {name(node): [name(each.get_source_output().get_node()) for each in node.inputs()] for node in nodes}
    convolutions = [name(node) for node in nodes if node.get_type_name() == "Convolution"]
    followed = _before(convolutions, reads)
    spared = set(convolutions) - followed
    heads = {name(node) for node in nodes} - _before_all(spared, reads) | spared
    kinds = {"Constant", "Result", "Parameter"}
    ignored = sorted(name(node) for node in nodes if name(node) in heads and node.get_type_name() not in kinds)
    small = nncf.quantize(
        network,
        nncf.Dataset(feed),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(feed),
        ignored_scope=nncf.IgnoredScope(names=ignored),
    )
    openvino.save_model(small, made / f"{exported.name.removesuffix('_openvino_model')}.xml")
    (made / "metadata.yaml").write_text((exported / "metadata.yaml").read_text())
    return made


def _before(convolutions: Iterable[str], reads: Mapping[str, list[str]]) -> set[str]:
    """Those convolutions whose output another one reads, directly or behind other nodes."""
    known = set(convolutions)
    return known & _before_all(known, reads)


def _before_all(ends: Iterable[str], reads: Mapping[str, list[str]]) -> set[str]:
    """All nodes that those of ``ends`` are computed from, without them unless they are read by another."""
    waiting = [name for end in ends for name in reads.get(end, [])]
    found: set[str] = set()
    while waiting:
        at = waiting.pop()
        if at not in found:
            found.add(at)
            waiting += reads.get(at, [])
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """The tools report through Python's logging."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


_QUANTISE: dict[str, Callable[[Path, list[Array], Path], Path]] = {"onnxruntime": _onnxruntime, "openvino": _openvino}
