"""What layers read: input patches at sampled positions, and their second moments.

Neighbouring positions say nearly the same, and most of an image holds no object. So a fixed number of positions is
drawn from every image: a share of them inside labelled boxes, each object alike, the rest anywhere. Where it is known
how much every position matters, half of the draw goes by that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import ceil, prod
from typing import cast

import torch
from torch import nn
from torch.nn import functional

from seqprune.errors import ModelError
from seqprune.observe.batch import Batch
from seqprune.observe.inputs import height_width
from seqprune.observe.maps import TRANSPOSED, Positions, read_at, weight_rows

POSITIONS = 400
"""Drawn from every image and feature map; smaller maps are taken whole."""
LEAST = 1 << 13
"""Samples of all images together, however few columns a layer reads."""
OBJECT_SHARE = 0.5
RELEVANT_SHARE = 0.5


@dataclass(frozen=True)
class Drawn:
    """Positions on the map of a batch of images, and how much each of them counts.

    Attributes:
        where: image, row and column.
        weight: ``[N]`` float32 of mean 1; all alike where it is left out.
    """

    where: Positions
    weight: torch.Tensor | None = None

    def part(self, images: slice) -> Drawn:
        """Those on some of the images, which are counted from the first of them."""
        image, row, column = (index.long() for index in self.where)
        mine = (image >= images.start) & (image < images.stop)
        weight = None if self.weight is None else self.weight[mine]
        return Drawn((image[mine] - images.start, row[mine], column[mine]), weight)

    def thinned(self, images: int, most: int) -> Drawn:
        """No more than ``most`` of each of ``images`` images that have equally many, evenly."""
        count = len(self.where[0]) // max(images, 1)
        step = ceil(count / max(most, 1))
        if step <= 1:
            return self
        mine = torch.arange(len(self.where[0])) % count % step == 0
        image, row, column = (index[mine] for index in self.where)
        return Drawn((image, row, column), None if self.weight is None else self.weight[mine])

    def resting(self) -> Drawn:
        """The same in a quarter of the memory, to be kept; :meth:`part` makes indices of it again."""
        image, row, column = (index.short() for index in self.where)
        return Drawn((image, row, column), self.weight)


@dataclass(frozen=True)
class Sampler:
    """Draws positions of feature maps.

    Attributes:
        positions: of each image and map.
        object_share: share of them that is drawn from boxes.
        seed: of the draw; the same batch gives the same positions.
    """

    positions: int = POSITIONS
    object_share: float = OBJECT_SHARE
    seed: int = 0

    def draw(
        self, batch: Batch, hw: tuple[int, int], relevance: torch.Tensor | None = None, most: int | None = None
    ) -> Drawn:
        """Positions on a map of ``hw`` cells for the images of a batch; on the CPU.

        Args:
            batch: whose number goes into the seed.
            hw: height and width of the map.
            relevance: ``[B, *hw]``, how much an error in each cell matters, on any scale. Half of the chance goes by
                it, and what is drawn is weighted so that the cells that matter most count for what they are: few of
                them hold nearly all of it, and none is drawn twice.
            most: of an image, where fewer are enough.
        """
        images, (height, width) = batch.count, hw
        count = min(self.positions, height * width, self.positions if most is None else most)
        random = torch.Generator().manual_seed(hash((self.seed, batch.number, height, width)) % (1 << 63))
        chance = self.object_share * _inside_boxes(batch, hw) + (1 - self.object_share) / (height * width)
        if relevance is not None:
            chance = (1 - RELEVANT_SHARE) * chance + RELEVANT_SHARE * shares(relevance)
        chance = chance.flatten(1)
        cells = torch.multinomial(chance, count, replacement=False, generator=random)
        weight = None
        if relevance is not None:
            expected = count * chance.gather(1, cells)  # how often each would be drawn, could it be more than once
            weight = expected if count == height * width else expected.clamp(min=1)
            weight = (weight / weight.mean(1, keepdim=True)).flatten()
        image = torch.arange(images).repeat_interleave(count)
        return Drawn((image, (cells // width).flatten(), (cells % width).flatten()), weight)


def enough(layer: nn.Module, images: int, each: int) -> int:
    """Positions of each of so many images that are enough for a layer, ``each`` for a column; at least one."""
    return ceil(max(each * weight_rows(layer).shape[1], LEAST) / max(images, 1))


def _inside_boxes(batch: Batch, hw: tuple[int, int]) -> torch.Tensor:
    """``[B, *hw]``: every object's probability spread over the cells of its box; even where there is no object."""
    height, width = hw
    if batch.boxes is None:
        return torch.full((batch.count, height, width), 1 / (height * width))
    image_height, image_width = height_width(batch.images)
    scale = torch.tensor([width / image_width, height / image_height] * 2)
    maps = torch.zeros(batch.count, height, width)
    corners = (batch.boxes.float() * scale).tolist()
    for image, (left, top, right, bottom) in zip(batch.image_index.tolist(), corners, strict=True):
        x, y = min(max(int(left), 0), width - 1), min(max(int(top), 0), height - 1)
        part = maps[image, y : max(int(bottom + 1), y + 1), x : max(int(right + 1), x + 1)]
        part += 1 / part.numel()
    return shares(maps)


def shares(maps: torch.Tensor) -> torch.Tensor:
    """``[B, H, W]`` divided by their sums; even where there is nothing."""
    total = maps.sum((1, 2), keepdim=True)
    return torch.where(total > 0, maps / total.clamp(min=1e-30), torch.full_like(maps, 1 / maps[0].numel()))


def patches(layer: nn.Module, x: torch.Tensor, where: Positions, output: torch.Tensor) -> torch.Tensor:
    """What a layer reads for positions of its map, see :func:`seqprune.observe.maps.as_map`:
    ``[groups, N, channels / groups * kernel]``.

    ``output`` is what it made of ``x``: its size says how a convolution padded that pads in its own way.
    """
    if isinstance(layer, (nn.Linear, *TRANSPOSED)):
        return read_at(layer, x, where)[None]
    image, row, column = (index.to(x.device) for index in where)
    conv = cast(nn.Conv2d, layer)
    if conv.padding_mode != "zeros":
        raise ValueError(f"padding of mode {conv.padding_mode!r}")
    kernel, stride, dilation = conv.kernel_size, conv.stride, conv.dilation
    sizes = list(output.shape[2:])
    pads = _pads(conv, x, sizes)
    if any(map(any, pads)):
        x = functional.pad(x, [size for both in reversed(pads) for size in both])
    at = [column]  # positions along every dimension, the last first
    for size in reversed(sizes[1:-1]):
        at.append(row % size)
        row = row // size
    if len(sizes) > 1:
        at.append(row)
    dims, count = len(sizes), len(image)
    index: list[torch.Tensor] = [image.view(-1, *[1] * dims)]
    for dim, place in enumerate(reversed(at)):
        taps = place[:, None] * stride[dim] + torch.arange(kernel[dim], device=x.device) * dilation[dim]
        index.append(taps.view(count, *[kernel[dim] if dim == other else 1 for other in range(dims)]))
    # [N, *kernel, C]: channels last, since the indexed dimensions come first.
    found = x.movedim(1, -1)[tuple(index)]
    groups = conv.groups
    found = found.reshape(count, prod(kernel), groups, -1).permute(2, 0, 3, 1)
    return found.reshape(groups, count, -1)


def _pads(conv: nn.Conv2d, x: torch.Tensor, sizes: Sequence[int]) -> list[tuple[int, int]]:
    """Zeros in front and behind along every dimension but the first two.

    As the convolution declares them, where that makes an output of ``sizes``; else what is needed for these, half of it
    in front and the odd one behind: TensorFlow's SAME, by whatever subclass, and torch's own ``padding="same"``.

    Raises:
        ValueError: no such padding makes an output of that size.
    """
    of = list(zip(x.shape[2:], conv.dilation, conv.kernel_size, conv.stride, sizes, strict=True))
    declared = (0,) * len(of) if isinstance(conv.padding, str) else conv.padding
    needed = [max((out - 1) * s + d * (k - 1) + 1 - size, 0) for size, d, k, s, out in of]
    for pads in ([(p, p) for p in declared], [(total // 2, total - total // 2) for total in needed]):
        padded = [size + sum(both) for size, both in zip(x.shape[2:], pads, strict=True)]
        if [(all_ - d * (k - 1) - 1) // s + 1 for all_, (_, d, k, s, _) in zip(padded, of, strict=True)] == list(sizes):
            return pads
    raise ValueError(f"no padding makes {list(sizes)} of {list(x.shape[2:])}")


WHOLE, STRIPS = 256, 4


def _symmetric(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """``leftᵀ right``, ``[groups, K, K]``, where that is symmetric: strips up to the diagonal, the rest mirrored."""
    size = left.shape[2]
    if size < WHOLE:
        return left.transpose(1, 2) @ right
    found = left.new_empty(len(left), size, size)
    ends = [size * strip // STRIPS for strip in range(STRIPS + 1)]
    for start, end in pairwise(ends):
        torch.bmm(left[:, :, start:end].transpose(1, 2), right[:, :, :end], out=found[:, start:end, :end])
        found[:, :start, start:end] = found[:, start:end, :start].transpose(1, 2)
    return found


@dataclass
class SecondMoments:
    """Count, means and summed products of deviations of patches and targets, in float64, merged batch by batch.

    Products are taken in float32 around the batch's own mean, so that nothing cancels, and summed in float64.

    Attributes:
        count: sum of the positions' weights.
        mean: ``[groups, K]`` of patches.
        products: ``[groups, K, K]``.
        target_mean: ``[groups, O]`` of targets.
        cross: ``[groups, O, K]``, targets with patches.
    """

    count: float = 0.0
    mean: torch.Tensor = field(default_factory=lambda: torch.zeros(0))
    products: torch.Tensor = field(default_factory=lambda: torch.zeros(0))
    target_mean: torch.Tensor = field(default_factory=lambda: torch.zeros(0))
    cross: torch.Tensor = field(default_factory=lambda: torch.zeros(0))

    def update(self, seen: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None = None) -> None:
        """Adds patches ``[groups, N, K]`` and targets ``[groups, N, O]``, ``O`` may be 0, with weights ``[N]`` or 1."""
        seen, target = seen.float(), target.float()
        each = torch.ones(seen.shape[1]) if weight is None else weight.float()
        count = float(each.sum())
        each = each.to(seen.device)[None, :, None]
        mean, target_mean = (seen * each).sum(1) / count, (target * each).sum(1) / count
        root = each.sqrt()  # the one matrix is used twice, and its products are symmetric to the bit
        centred = (seen - mean[:, None]).mul_(root)
        products = _symmetric(centred, centred).double()
        cross = (((target - target_mean[:, None]) * root).transpose(1, 2) @ centred).double()
        self.merge(SecondMoments(count, mean.double(), products, target_mean.double(), cross))

    def merge(self, more: SecondMoments) -> None:
        """Adds those of other samples."""
        if not self.count:
            self.count, self.mean, self.products = more.count, more.mean.clone(), more.products.clone()
            self.target_mean, self.cross = more.target_mean.clone(), more.cross.clone()
            return
        total = self.count + more.count
        share = self.count * more.count / total
        apart, target_apart = more.mean - self.mean, more.target_mean - self.target_mean
        self.products += more.products
        self.products.baddbmm_(apart[:, :, None] * share, apart[:, None])
        self.cross += more.cross
        self.cross.baddbmm_(target_apart[:, :, None] * share, apart[:, None])
        self.mean += apart * (more.count / total)
        self.target_mean += target_apart * (more.count / total)
        self.count = total

    def finite(self, name: str) -> SecondMoments:
        """These, of what the layer ``name`` reads, if they are numbers.

        Raises:
            ModelError: they are none, so that nothing can be fitted to them.
        """
        if not all(part.isfinite().all() for part in (self.products, self.cross)):
            raise ModelError(
                f"what {name} reads is NaN, infinite or too large for its products to be numbers: scale images as for "
                "the network's training, or look at the layers in front of it"
            )
        return self
