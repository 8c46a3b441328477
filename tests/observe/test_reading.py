"""What layers read, of whatever dimensions, is what their weights multiply; what is not is left out and said."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from seqprune.observe.batch import Batch
from seqprune.observe.maps import as_map
from seqprune.observe.patches import patches
from seqprune.observe.reading import reading_of
from seqprune.observe.unit import Unit

NONE = torch.zeros(0, dtype=torch.int64)


def batch(inputs: object) -> Batch:
    return Batch(inputs, NONE, NONE)


LAYERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "1d": (nn.Conv1d(4, 6, 3, stride=2, padding=1, dilation=2), (2, 4, 11)),
    "1d grouped": (nn.Conv1d(4, 6, 3, groups=2), (2, 4, 9)),
    "2d": (nn.Conv2d(4, 6, (3, 1), stride=(1, 2), padding=(1, 0)), (2, 4, 7, 6)),
    "3d": (nn.Conv3d(3, 5, (2, 3, 1), stride=(1, 2, 1), padding=(1, 1, 0)), (2, 3, 4, 6, 5)),
    "3d grouped": (nn.Conv3d(4, 4, 2, groups=2, bias=False), (2, 4, 3, 4, 5)),
    "2d same": (nn.Conv2d(4, 6, (4, 3), padding="same", dilation=(2, 1)), (2, 4, 7, 6)),
    "2d valid": (nn.Conv2d(4, 6, 3, padding="valid"), (2, 4, 7, 6)),
    "linear": (nn.Linear(5, 7), (2, 5)),
    "linear on tokens": (nn.Linear(5, 7), (2, 4, 5)),
    "linear on rows and columns": (nn.Linear(5, 7, bias=False), (2, 4, 3, 5)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_patches_times_weights_are_the_output_everywhere(name: str) -> None:
    layer, shape = LAYERS[name]
    x = torch.randn(*shape)
    with torch.no_grad():
        output = layer(x)
        shown = as_map(layer, output)
        images, _, height, width = shown.shape
        cells = torch.arange(images * height * width)
        where = (cells // (height * width), cells // width % height, cells % width)
        read = patches(layer, x, where, output)
        made = torch.cat([p @ w.T for p, w in zip(read, layer.weight.flatten(1).chunk(len(read)), strict=True)], 1)
        if layer.bias is not None:
            made = made + layer.bias
    torch.testing.assert_close(made, shown[where[0], :, where[1], where[2]])


class Same(nn.Conv2d):
    """Pads as TensorFlow's SAME, the odd zero behind; says that it pads nothing."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pads = []
        for size, k, s, d in reversed(
            list(zip(x.shape[2:], self.kernel_size, self.stride, self.dilation, strict=True))
        ):
            total = max((-(-size // s) - 1) * s + (k - 1) * d + 1 - size, 0)
            pads += [total // 2, total - total // 2]
        return functional.conv2d(
            functional.pad(x, pads), self.weight, self.bias, self.stride, 0, self.dilation, self.groups
        )


@settings(max_examples=40)
@given(
    side=st.integers(5, 12),
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    groups=st.sampled_from([1, 4]),
)
def test_a_subclass_that_pads_as_tensorflow_does_is_read(
    side: int, kernel: tuple[int, int], stride: int, dilation: int, groups: int
) -> None:
    """timm's ``Conv2dSame``: five layers of an EfficientNet were left out of choice and fit."""
    layer = Same(4, 8, kernel, stride, dilation=dilation, groups=groups)
    reading = reading_of(nn.Sequential(layer).eval(), batch(torch.randn(1, 4, side, side + 1)))
    assert reading.names == ("0",)


class Before(nn.Conv2d):
    """Pads in its own way, in front alone."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.conv2d(functional.pad(x, (1, 0, 1, 0)), self.weight, self.bias, self.stride)


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.before, self.plain = Before(3, 8, 3, stride=2), nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.norm, self.beside = nn.BatchNorm2d(8), nn.Conv2d(8, 8, 1)
        self.folded, self.last = nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.norm(self.plain(self.before(x))))
        x = x + self.beside(x)
        windows = self.folded(x.permute(0, 2, 3, 1).reshape(-1, 2, 8))
        return self.last(windows.reshape(len(x), -1, 8).mean(1))


def test_what_a_layer_reads_is_checked_and_not_believed() -> None:
    """What pads to both sides unequally was taken for a plain convolution."""
    reading = reading_of(Mixed().eval(), batch(torch.randn(2, 3, 16, 16)))
    assert set(reading.names) == {"plain", "beside", "last"}
    assert "may pad in its own way" in reading.left_out["before"]
    assert "entries for one image" in reading.left_out["folded"]


def test_a_unit_is_what_alone_follows_module_or_function() -> None:
    reading = reading_of(Mixed().eval(), batch(torch.randn(2, 3, 16, 16)))
    assert reading.unit("plain").norm == "norm"
    assert isinstance(reading.unit("plain").activation, nn.ReLU)
    assert reading.unit("beside") == Unit(shortcut="beside")  # its output is added to what it reads
    assert reading.unit("last") == Unit()


ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu6": functional.relu6,
    "hardtanh": lambda x: functional.hardtanh(x, -0.5, 0.25),
    "leaky": lambda x: functional.leaky_relu(x, 0.2),
    "gelu": lambda x: functional.gelu(x, approximate="tanh"),
    "softplus": lambda x: functional.softplus(x, 2.0),
    "silu": functional.silu,
    "tanh": torch.tanh,
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_curve_is_what_the_function_computes(name: str) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.last = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(ACTIVATIONS[name](self.conv(x)))

    net, z = Net().eval(), torch.linspace(-3, 3, 13)
    found = reading_of(net, batch(torch.randn(1, 3, 4, 4))).unit("conv").activation
    assert found is not None
    torch.testing.assert_close(found(z), ACTIVATIONS[name](z))
