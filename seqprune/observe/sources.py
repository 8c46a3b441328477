"""Second moments of what every convolution of a network reads, all of them from one pass over the images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch
from torch import nn

from seqprune.observe.batch import Batch, LabelledImages, as_input
from seqprune.observe.extract import Progress
from seqprune.observe.forward import Forward
from seqprune.observe.patches import Positions, Sampler, SecondMoments, patches

Looks = Callable[[str, nn.Conv2d, torch.Tensor, torch.Tensor], None]
"""Given the name of a convolution, itself, its input and its output."""


@contextmanager
def watching(model: nn.Module, names: Sequence[str], look: Looks) -> Iterator[None]:
    """Calls ``look`` whenever one of the convolutions has run."""

    def hook(name: str, conv: nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        look(name, cast(nn.Conv2d, conv), inputs[0], output)

    handles = [model.get_submodule(name).register_forward_hook(partial(hook, name)) for name in names]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class Places:
    """The sampled positions of one batch, drawn once for each size of map."""

    def __init__(self, sampler: Sampler, batch: Batch, number: int) -> None:
        self.sampler, self.batch, self.number = sampler, batch, number
        self._drawn: dict[tuple[int, int], Positions] = {}

    def of(self, output: torch.Tensor, part: slice) -> Positions:
        """On the map ``output`` of the images ``part``."""
        hw = (output.shape[-2], output.shape[-1])
        if hw not in self._drawn:
            self._drawn[hw] = self.sampler.draw(self.batch, self.number, hw)
        image, row, column = self._drawn[hw]
        mine = (image >= part.start) & (image < part.stop)
        return image[mine] - part.start, row[mine], column[mine]


def second_moments(
    model: nn.Module,
    names: Sequence[str],
    images: LabelledImages,
    sampler: Sampler,
    progress: Progress | None = None,
    forward: Forward | None = None,
) -> tuple[dict[str, SecondMoments], dict[str, str]]:
    """Of the input patches of the convolutions ``names``.

    Returns:
        The moments by name, and for every name the one that holds them: convolutions that read the same tensor in the
        same way share theirs.
    """
    forward = forward or Forward()
    device = next(model.parameters()).device
    leader = _leaders(model, names, next(iter(images)))
    leaders = [name for name in names if leader[name] == name]
    found = {name: SecondMoments() for name in leaders}
    for number, batch in enumerate(images):
        places = Places(sampler, batch, number)

        def run(part: slice, batch: Batch = batch, places: Places = places) -> None:
            def look(name: str, conv: nn.Conv2d, x: torch.Tensor, output: torch.Tensor) -> None:
                seen = patches(conv, x, places.of(output, part))
                found[name].update(seen, seen[:, :, :0])

            with watching(model, leaders, look):
                model(as_input(batch.images[part], model))

        forward(len(batch.images), device, run)
        if progress is not None:
            progress(len(batch.images))
    return found, leader


def _leaders(model: nn.Module, names: Sequence[str], batch: Batch) -> dict[str, str]:
    """By convolution, the first that reads the same tensor with the same geometry."""
    first: dict[Any, str] = {}
    leader: dict[str, str] = {}
    alive = []  # or a later tensor could be made in the place of an earlier one

    def look(name: str, conv: nn.Conv2d, x: torch.Tensor, _output: torch.Tensor) -> None:
        alive.append(x)
        key = (id(x), conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups)
        leader[name] = first.setdefault(key, name)

    with torch.no_grad(), watching(model, names, look):
        model(as_input(batch.images[:1], model))
    return leader
