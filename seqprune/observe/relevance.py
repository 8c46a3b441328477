"""What an error matters in the end, at every position and channel of a convolution's output: one backward pass.

A probe ``P`` is a random scalar of what a network returns, whose gradient ``g`` at any tensor inside has
``E[g gᵀ] = Jᵀ H J``: the Gauss-Newton curvature of the distance that the probe stands for. So ``g²`` says what a
squared error costs (M. Hutchinson, "A stochastic estimator of the trace of the influence matrix", 1989; J. Martens,
"New insights and perspectives on the natural gradient method", JMLR 2020).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from seqprune.errors import ModelError
from seqprune.graph.values import first_line
from seqprune.observe.batch import Batch, LabelledImages, images_in
from seqprune.observe.extract import Progress
from seqprune.observe.forward import Forward
from seqprune.observe.inputs import Inputs, with_gradients
from seqprune.observe.maps import as_map
from seqprune.observe.patches import RELEVANT_SHARE, Drawn, Sampler, enough, shares
from seqprune.observe.ranks import ALONE, Pieces, Ranks
from seqprune.observe.reading import Reading, reading_of
from seqprune.observe.unit import Curve, slope_of
from seqprune.observe.watching import watching

Probe = Callable[[nn.Module, Inputs, torch.Generator], torch.Tensor]
"""Given a model, its input and randomness, a scalar."""
TOGETHER = 4
"""Images that go through the network with gradients at once: all that it computes is kept for the way back."""
ENOUGH = 16
"""Samples for every column that a layer reads, of all images together. With half as many detections of unseen images
are 4 to 5 percent further from the unpruned network's, with all positions 1 percent nearer."""


@dataclass
class Relevance:
    """By convolution.

    Attributes:
        curvature: ``[channels]`` float64, squared gradients summed over all positions of all images.
        slope: ``[channels]`` float64, mean squared derivative of the activation, weighted as the positions are; only
            where there is one.
        drawn: by number of the batch and convolution, the positions to look at: 4 kB for an image and a convolution.
        together: ``[channels]`` float64, squared gradients of what scales a whole map around its mean, summed over
            images: what it costs to lose as much of it at all positions. Only where it was asked for.
    """

    curvature: dict[str, torch.Tensor] = field(default_factory=dict)
    slope: dict[str, torch.Tensor] = field(default_factory=dict)
    drawn: dict[tuple[int, str], Drawn] = field(default_factory=dict)
    together: dict[str, torch.Tensor] = field(default_factory=dict)

    def samples(self) -> dict[str, float]:
        """By convolution, as how many positions those that were drawn count: (Σ w)² / Σ w², where some matter more.

        L. Kish, "Survey sampling", 1965: the effective sample size.
        """
        sums: dict[str, tuple[float, float]] = {}
        for (_, name), drawn in self.drawn.items():
            weight = torch.ones(len(drawn.where[0])) if drawn.weight is None else drawn.weight.double()
            total, squares = sums.get(name, (0.0, 0.0))
            sums[name] = total + float(weight.sum()), squares + float(weight.square().sum())
        return {name: total**2 / squares for name, (total, squares) in sums.items()}


def relevance_of(
    model: nn.Module,
    names: Sequence[str],
    images: LabelledImages,
    probe: Probe,
    sampler: Sampler | None = None,
    forward: Forward | None = None,
    progress: Progress | None = None,
    reading: Reading | None = None,
    pooled: bool = False,
    ranks: Ranks = ALONE,
) -> Relevance:
    """Runs a probe back from the outputs to the layers ``names``.

    Args:
        model: in inference mode; its parameters are left as they are and get no gradients.
        names: layers whose outputs matter.
        images: batches with numbers of their own.
        probe: see the head of this module.
        sampler: draws the positions; its seed is the probe's too.
        forward: precision, and how many images at a time.
        progress: told the number of images of every batch.
        reading: what follows the layers; looked at on the first image where it is left out.
        pooled: whether errors of all positions are added up. What a layer loses is lost at all of them alike: one by
            one, the last layers of a classifier, in front of its mean over the map, seem to matter little.
        ranks: the processes that share the images; all return the same.
    """
    reading = reading or reading_of(model, next(iter(images)))
    sampler, forward = sampler or Sampler(), forward or Forward()
    device = next(model.parameters()).device
    curves = {name: curve for name in names if (curve := reading.unit(name).curve(model, name)) is not None}
    most = {name: enough(model.get_submodule(name), images_in(images), ENOUGH) for name in names}
    found, count = Relevance(), 0

    def put(number: int, images: int, drawn: dict[str, Drawn], sums: dict[str, dict[str, Any]]) -> None:
        nonlocal count
        count += images
        found.drawn.update({(number, name): each for name, each in drawn.items()})
        kinds = {"curvature": found.curvature, "slope": found.slope, "together": found.together}
        for kind, totals in kinds.items():
            for name, more in sums[kind].items():
                _add(totals, name, more)
        if progress is not None:
            progress(images)

    pieces = Pieces(ranks, put)
    for batch in ranks.rounds(images):
        if batch is None:
            pieces.settle()
            continue
        random = torch.Generator().manual_seed(hash((sampler.seed, batch.number)) % (1 << 63))
        look = partial(_looks, model, names, curves, batch, probe, random, pooled)
        seen = [piece for part in forward(batch.count, device, look) for piece in part]
        pieces.add(batch.number, batch.count, _draws(seen, sampler, batch, most), _summed(seen))
        pieces.settle()
    found.slope = {name: total / count for name, total in found.slope.items()}
    return found


@dataclass(frozen=True)
class _Seen:
    """Of some images, by convolution."""

    maps: dict[str, torch.Tensor]  # [B, H, W]
    curvature: dict[str, torch.Tensor]  # [channels]
    slopes: dict[str, torch.Tensor]  # [channels], summed over images
    together: dict[str, torch.Tensor]  # [channels]

    def on_cpu(self) -> _Seen:
        parts = (self.maps, self.curvature, self.slopes, self.together)
        tensors = [tensor for part in parts for tensor in part.values()]
        if not tensors or tensors[0].device.type == "cpu":
            return self
        here = iter(moved(tensors, torch.Tensor.cpu))
        return _Seen(*({name: next(here) for name in part} for part in parts))


def moved(tensors: Sequence[torch.Tensor], move: Callable[[torch.Tensor], torch.Tensor]) -> list[torch.Tensor]:
    """Tensors elsewhere, by one ``move`` for each type of number and not by one for each of hundreds of tensors."""
    found: dict[int, torch.Tensor] = {}
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        alike = [at for at, tensor in enumerate(tensors) if tensor.dtype is dtype]
        whole = move(torch.cat([tensors[at].flatten() for at in alike]))
        parts = torch.split(whole, [tensors[at].numel() for at in alike])
        found |= {at: part.view(tensors[at].shape) for at, part in zip(alike, parts, strict=True)}
    return [found[at] for at in range(len(tensors))]


def _looks(
    model: nn.Module,
    names: Sequence[str],
    curves: dict[str, Curve],
    batch: Batch,
    probe: Probe,
    random: torch.Generator,
    pooled: bool,
    part: slice,
) -> list[_Seen]:
    """A few images at a time."""
    pieces = (slice(at, min(at + TOGETHER, part.stop)) for at in range(part.start, part.stop, TOGETHER))
    before = random.get_state()
    try:
        return [_look(model, names, curves, batch.input(model, piece), probe, random, pooled) for piece in pieces]
    except torch.cuda.OutOfMemoryError:  # the part is run again in halves, with the same draws
        random.set_state(before)
        raise


def _draws(seen: Sequence[_Seen], sampler: Sampler, batch: Batch, most: dict[str, int]) -> dict[str, Drawn]:
    """By convolution, the positions to look at, no more than ``most`` of an image."""
    found = {}
    for name in seen[0].maps:
        maps = torch.cat([piece.maps[name] for piece in seen])
        found[name] = sampler.draw(batch, _hw(maps), maps, most[name]).resting()
    return found


def _summed(seen: Sequence[_Seen]) -> dict[str, dict[str, Any]]:
    """By kind and convolution, over all images."""
    names = seen[0].maps
    return {
        "curvature": {name: sum(piece.curvature[name] for piece in seen) for name in names},
        "slope": {name: sum(piece.slopes[name] for piece in seen) for name in seen[0].slopes},
        "together": {name: sum(piece.together[name] for piece in seen) for name in seen[0].together},
    }


def _look(
    model: nn.Module,
    names: Sequence[str],
    curves: dict[str, Curve],
    inputs: Inputs,
    probe: Probe,
    random: torch.Generator,
    pooled: bool,
) -> _Seen:
    outputs: dict[str, torch.Tensor] = {}
    again: set[str] = set()

    def keep(name: str, _layer: nn.Module, _x: torch.Tensor, output: torch.Tensor) -> None:
        if name in outputs:
            again.add(name)  # one that runs twice has two maps, and positions on neither mean the other
        outputs[name] = output

    # Ultralytics' heads for key points decode in place what the way back needs.
    with torch.enable_grad(), torch.autograd.graph.allow_mutation_on_saved_tensors():
        with watching(model, names, keep):
            value = probe(model, with_gradients(inputs), random)
        # What no image reaches, as the words of a prompt, has no gradient.
        outputs = {name: y for name, y in outputs.items() if name not in again and y.requires_grad}
        wanted = list(outputs.values())  # none of a network all of whose layers are read in no way that is known
        gradients = _gradients(value, wanted) if wanted else ()
    seen = _Seen({}, {}, {}, {})
    for (name, output), gradient in zip(outputs.items(), gradients, strict=True):
        layer = model.get_submodule(name)
        gradient = torch.zeros_like(output) if gradient is None else gradient
        squares = as_map(layer, gradient.float().square())
        if pooled:
            shown, slopes = as_map(layer, output.detach()).float(), as_map(layer, gradient).float()
            around = shown - shown.mean((0, 2, 3), keepdim=True)
            seen.together[name] = (slopes * around).sum((2, 3)).square().sum(0).double()
        seen.maps[name] = squares.sum(1)
        seen.curvature[name] = squares.sum((0, 2, 3)).double()
        if name in curves:
            curve = curves[name]
            scale, shift = (each.float()[:, None, None] for each in (curve.scale, curve.shift))
            slopes = slope_of(curve.activation, as_map(layer, output).float() * scale + shift).square()
            maps = seen.maps[name]
            chance = RELEVANT_SHARE * shares(maps) + (1 - RELEVANT_SHARE) / maps[0].numel()
            seen.slopes[name] = (slopes * chance[:, None]).sum((0, 2, 3)).double()
    return seen.on_cpu()


def _gradients(value: torch.Tensor, of: Sequence[torch.Tensor]) -> Sequence[torch.Tensor | None]:
    """
    Raises:
        ModelError: the network's code lets none through.
    """
    why = "its code detaches what it computes, or runs it under no_grad"
    if value.requires_grad:
        try:
            return torch.autograd.grad(value, of, allow_unused=True)
        except RuntimeError as error:
            if isinstance(error, torch.cuda.OutOfMemoryError):  # the part is run again in halves
                raise
            why = first_line(error)
    raise ModelError(
        f"errors are weighed by gradients of what the network returns, and there are none: {why}; let them through, or "
        "take preset fast"
    )


def _add(totals: dict[str, torch.Tensor], name: str, more: torch.Tensor) -> None:
    totals[name] = totals[name] + more if name in totals else more


def _hw(maps: torch.Tensor) -> tuple[int, int]:
    return maps.shape[-2], maps.shape[-1]
