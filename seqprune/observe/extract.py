"""Object vectors of layers: one forward pass to the last of them, nothing but moments leaving it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

import torch
from torch import nn

from seqprune.errors import ModelError
from seqprune.observe.batch import Batch, LabelledImages
from seqprune.observe.forward import Forward
from seqprune.observe.inputs import height_width
from seqprune.observe.lanes import Lanes
from seqprune.observe.match import centre_cells, matched_objects
from seqprune.observe.ranks import ALONE, Ranks
from seqprune.observe.running import RunningMoments
from seqprune.observe.streaming import BlockStream, Pass, Run, whole_passes
from seqprune.select.moments import ClassMoments

Predict = Callable[[nn.Module, torch.Tensor], list[torch.Tensor]]
Progress = Callable[[int], None]
"""Called with the number of images done after every batch."""


@dataclass(frozen=True)
class Observation:
    """What was seen of some layers.

    Attributes:
        moments: per layer, the moments of its object vectors.
        objects: number of objects they were taken from.
    """

    moments: dict[str, ClassMoments]
    objects: int


@dataclass(frozen=True)
class _Seen:
    """What was seen of one batch: classes ``[M]`` and by layer vectors ``[M, channels]`` of its objects."""

    images: int
    kinds: torch.Tensor
    vectors: dict[str, torch.Tensor]

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process may not have this one's GPU, and would begin to use it.
        return _Seen, (self.images, self.kinds.cpu(), {name: rows.cpu() for name, rows in self.vectors.items()})


def observe(
    model: nn.Module,
    layers: Sequence[str],
    images: LabelledImages,
    classes: int,
    matched: Sequence[torch.Tensor] | None = None,
    progress: Progress | None = None,
    stream: BlockStream | None = None,
    forward: Forward | None = None,
    ranks: Ranks = ALONE,
) -> Observation:
    """Moments of the layers' outputs (before BatchNorm) at the cells under the objects' centres, or over whole images.

    The forward pass stops after the last of the layers; a layer that runs twice is observed at its first run.

    Args:
        model: in inference mode; runs on the device of its parameters.
        layers: module paths.
        images: labelled images; with several processes this one's share of them.
        classes: number of classes; class ids lie in ``[0, classes)``.
        matched: per batch, ``[M]`` bool, which objects count; all of them where it is left out.
        progress: told the number of images that all processes have done.
        stream: continues the passes of earlier calls over the same images instead of starting anew.
        forward: precision, and how many images at a time.
        ranks: the processes that share the images.

    Raises:
        ModelError: a layer was not reached or does not return a feature map.
    """
    forward = forward or Forward()
    lanes = Lanes(model, forward)
    running: dict[str, RunningMoments] = {}
    objects = 0
    passes = whole_passes(model, images) if stream is None else stream.passes(model, layers, images, lanes=lanes)
    for number in count():
        ahead = next(passes, None)
        mine = None
        if ahead is not None:
            chosen = ahead.batch if matched is None else ahead.batch.select(matched[number])
            mine = _look(layers, ahead, chosen, lanes)
        everyones = [seen for seen in ranks.gather(mine) if seen is not None]
        if not everyones:
            break
        for seen in everyones:
            objects += len(seen.kinds)
            for name, rows in seen.vectors.items():
                if name not in running:
                    running[name] = RunningMoments(classes, rows.shape[1], lanes.device)
                running[name].add(rows.to(lanes.device), seen.kinds.to(lanes.device))
        if progress is not None:
            progress(sum(seen.images for seen in everyones))
    empty = {name: RunningMoments(classes, 0, lanes.device) for name in layers if name not in running}
    return Observation({n: (running | empty)[n].result() for n in layers}, objects)


def match_objects(
    model: nn.Module,
    predict: Predict,
    images: LabelledImages,
    progress: Progress | None = None,
    forward: Forward | None = None,
) -> list[torch.Tensor]:
    """Per batch, ``[M]`` bool: the objects that ``model`` finds (a prediction of their class, IoU > 0.5)."""
    lanes = Lanes(model, forward or Forward())
    # One buffer: small tensors that stay between large ones that go would keep memory in holes.
    matched, sizes = bytearray(), []
    for batch in images:
        parts = lanes(batch.images, partial(_predicted, predict, batch))
        found = matched_objects(batch, [boxes for part in parts for boxes in part])
        matched += found.numpy().tobytes()
        sizes.append(len(found))
        if progress is not None:
            progress(batch.count - batch.filler)
    flags = torch.frombuffer(matched, dtype=torch.bool) if matched else torch.zeros(0, dtype=torch.bool)
    return list(torch.split(flags, sizes))


def _predicted(predict: Predict, batch: Batch, model: nn.Module, part: slice) -> list[torch.Tensor]:
    return predict(model, batch.input(model, part))


def _look(layers: Sequence[str], ahead: Pass, chosen: Batch, lanes: Lanes) -> _Seen:
    """The vectors of one batch's chosen objects; where there are none, the network is not run."""
    images = ahead.images - chosen.filler
    if not len(chosen.classes):
        return _Seen(images, chosen.classes, {})
    parts = lanes(ahead.batch.images, partial(_object_vectors, layers, ahead.ready(), chosen))
    kinds = torch.cat([kinds for _, kinds in parts])
    return _Seen(images, kinds, {name: torch.cat([found[name] for found, _ in parts]) for name in layers})


def _object_vectors(
    layers: Sequence[str], run: Run, batch: Batch, model: nn.Module, part: slice
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Of the objects in the images of ``part``: ``[M, channels]`` by layer, and their classes."""
    outputs = _outputs(model, layers, partial(run, part, model))
    mine = (batch.image_index >= part.start) & (batch.image_index < part.stop)
    device = next(model.parameters()).device
    where = (batch.image_index[mine] - part.start).to(device)
    vectors = {}
    for name, output in outputs.items():
        if len(output) != part.stop - part.start:
            raise ModelError(
                f"{name} returns {tuple(output.shape)} for {part.stop - part.start} images, so that an object's place "
                "in it is not known; choose another layer"
            )
        if batch.boxes is None:
            vectors[name] = output.flatten(2).mean(2)[where] if output.dim() > 2 else output[where]
            continue
        if output.dim() != 4:
            raise ModelError(f"{name} returns no feature map but {tuple(output.shape)}; choose a convolution")
        rows, columns = centre_cells(batch.boxes[mine], height_width(batch.images), _hw(output))
        vectors[name] = output[where, :, rows.to(device), columns.to(device)]
    return vectors, batch.classes[mine].to(device)


class _Reached(Exception):
    pass


def _outputs(model: nn.Module, layers: Sequence[str], run: Callable[[], object]) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    with _hooks(model, layers, found), suppress(_Reached):
        run()
    if missing := [name for name in layers if name not in found]:
        raise ModelError(f"{missing[0]} did not run on these images: it cannot be observed; choose another layer")
    return found


@contextmanager
def _hooks(model: nn.Module, layers: Sequence[str], found: dict[str, torch.Tensor]) -> Iterator[None]:
    def keep(name: str) -> Callable[[nn.Module, object, torch.Tensor], None]:
        def hook(module: nn.Module, _args: object, output: torch.Tensor) -> None:
            # A linear layer's channels lie last, behind rows and columns.
            last = isinstance(module, nn.Linear) and output.dim() > 2
            found.setdefault(name, output.movedim(-1, 1) if last else output)
            if len(found) == len(layers):
                raise _Reached

        return hook

    handles = [model.get_submodule(name).register_forward_hook(keep(name)) for name in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _hw(images: torch.Tensor) -> tuple[int, int]:
    return images.shape[-2], images.shape[-1]
