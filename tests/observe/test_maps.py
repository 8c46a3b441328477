"""A transposed convolution whose kernel is its stride is read as a layer that makes a block of cells of one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from seqprune.observe.batch import Noise
from seqprune.observe.maps import as_map, as_weight, map_size, readable, taps, values_at, weight_rows
from seqprune.observe.patches import Sampler, patches
from seqprune.observe.sources import second_moments

LAYERS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "1d": (nn.ConvTranspose1d(3, 2, 4, 4), (5,)),
    "2d": (nn.ConvTranspose2d(3, 2, (2, 3), (2, 3)), (4, 5)),
    "2d without bias": (nn.ConvTranspose2d(3, 2, 2, 2, bias=False), (4, 5)),
    "3d": (nn.ConvTranspose3d(3, 2, (2, 1, 3), (2, 1, 3)), (2, 3, 4)),
}


@pytest.mark.parametrize(("layer", "size"), LAYERS.values(), ids=LAYERS)
def test_rows_times_what_is_read_give_the_output(layer: Any, size: tuple[int, ...]) -> None:
    layer = layer.double()
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        output = layer(x)
    height, width = map_size(layer, output)
    cells = torch.arange(2 * height * width)
    where = cells // (height * width), cells // width % height, cells % width
    (read,) = patches(layer, x, where, output)
    bias = 0 if layer.bias is None else layer.bias.detach().repeat_interleave(taps(layer))
    found = read @ weight_rows(layer).T + bias
    assert readable(layer)
    assert as_map(layer, output).shape == (2, 2 * taps(layer), height, width)
    torch.testing.assert_close(found, values_at(layer, output, where))
    assert torch.equal(as_weight(layer, weight_rows(layer)), layer.weight)


@pytest.mark.parametrize(
    "layer",
    [
        nn.ConvTranspose2d(4, 4, 3, 2),
        nn.ConvTranspose2d(4, 4, 4, 4, padding=1),
        nn.ConvTranspose2d(4, 4, 2, 2, output_padding=1),
        nn.ConvTranspose2d(4, 4, 2, 2, dilation=2),
        nn.ConvTranspose2d(4, 4, 2, 2, groups=2),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        nn.BatchNorm2d(4),
    ],
)
def test_others_are_not_read(layer: nn.Module) -> None:
    assert not readable(layer)


class Both(nn.Module):
    """One tensor, read by layers that differ in nothing but their direction."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(3, 2, 2, 2), nn.ConvTranspose2d(3, 2, 2, 2)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.down(x), self.up(x)


def test_one_that_reads_the_same_tensor_in_the_other_direction_has_moments_of_its_own() -> None:
    moments, leader = second_moments(Both().eval(), ["down", "up"], Noise(8), Sampler())
    assert leader == {"down": "down", "up": "up"}
    assert [moments[name].products.shape for name in leader] == [(1, 12, 12), (1, 3, 3)]


def test_what_is_no_transposed_convolution_has_one_row_for_a_channel() -> None:
    for layer in (nn.Linear(3, 2), nn.Conv2d(4, 2, 3, groups=2)):
        assert taps(layer) == 1
        assert torch.equal(weight_rows(layer), layer.weight.flatten(1))
        assert torch.equal(as_weight(layer, weight_rows(layer)), layer.weight)
