"""Object vectors of layers: one forward pass to the last of them, nothing but moments leaving it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from seqprune.errors import ModelError
from seqprune.observe.batch import Batch, LabelledImages, as_input
from seqprune.observe.match import centre_cells, matched_objects
from seqprune.observe.running import RunningMoments
from seqprune.observe.streaming import BlockStream
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


class _Reached(Exception):
    pass


def observe(
    model: nn.Module,
    layers: Sequence[str],
    images: LabelledImages,
    classes: int,
    matched: Sequence[torch.Tensor] | None = None,
    progress: Progress | None = None,
    stream: BlockStream | None = None,
) -> Observation:
    """Moments of the layers' outputs (before BatchNorm) at the cells under the objects' centres.

    The forward pass stops after the last of the layers; a layer that runs twice is observed at its first run.

    Args:
        model: in inference mode; runs on the device of its parameters.
        layers: module paths.
        images: labelled images.
        classes: number of classes; class ids lie in ``[0, classes)``.
        matched: per batch, ``[M]`` bool, which objects count; all of them where it is left out.
        stream: continues the passes of earlier calls over the same images instead of starting anew.

    Raises:
        ModelError: a layer was not reached or does not return a feature map.
    """
    device = next(model.parameters()).device
    running: dict[str, RunningMoments] = {}
    objects = 0
    passes = _whole_passes(model, images) if stream is None else stream.passes(model, layers)
    for number, (batch, run) in enumerate(passes):
        chosen = batch if matched is None else batch.select(matched[number])
        if len(chosen.classes):
            objects += len(chosen.classes)
            where, kind = chosen.image_index.to(device), chosen.classes.to(device)
            outputs = _outputs(model, layers, run)
            for name, output in outputs.items():
                rows, columns = centre_cells(chosen.boxes, _hw(batch.images), _hw(output))
                vectors = output[where, :, rows.to(device), columns.to(device)]
                if name not in running:
                    running[name] = RunningMoments(classes, output.shape[1], device)
                running[name].update(vectors, kind)
        if progress is not None:
            progress(len(batch.images))
    empty = {name: RunningMoments(classes, 0, device) for name in layers if name not in running}
    return Observation({n: (running | empty)[n].result() for n in layers}, objects)


def match_objects(
    model: nn.Module, predict: Predict, images: LabelledImages, progress: Progress | None = None
) -> list[torch.Tensor]:
    """Per batch, ``[M]`` bool: the objects that ``model`` finds (a prediction of their class, IoU > 0.5)."""
    matched = []
    for batch in images:
        matched.append(matched_objects(batch, predict(model, as_input(batch.images, model))))
        if progress is not None:
            progress(len(batch.images))
    return matched


def _whole_passes(model: nn.Module, images: LabelledImages) -> Iterator[tuple[Batch, Callable[[], object]]]:
    for batch in images:
        yield batch, partial(lambda b: model(as_input(b.images, model)), batch)


def _outputs(model: nn.Module, layers: Sequence[str], run: Callable[[], object]) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    with _hooks(model, layers, found), torch.no_grad(), suppress(_Reached):
        run()
    if missing := [name for name in layers if name not in found]:
        raise ModelError(f"{missing[0]} did not run on these images: it cannot be observed; choose another layer")
    return found


@contextmanager
def _hooks(model: nn.Module, layers: Sequence[str], found: dict[str, torch.Tensor]) -> Iterator[None]:
    def keep(name: str) -> Callable[[nn.Module, object, torch.Tensor], None]:
        def hook(_module: nn.Module, _args: object, output: torch.Tensor) -> None:
            if output.dim() != 4:
                raise ModelError(f"{name} returns no feature map but {tuple(output.shape)}; choose a convolution")
            found.setdefault(name, output)
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
