"""What a network works out from its own parameters and buffers is cut with the channels that it scales or shifts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from exactness import exact_on
from torch import nn

from seqprune import compact, mask, trace
from seqprune.testing.networks import random_plan

X = torch.randn(2, 3, 9, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
Code = Callable[[Any, torch.Tensor], Any]
exact = partial(exact_on, X, plans=3)


class Net(nn.Module):
    """A convolution, code that works with numbers of its channels, and a reader."""

    def __init__(self, code: Code) -> None:
        super().__init__()
        self.conv, self.last, self.code = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 2, 1), code
        generator = torch.Generator().manual_seed(0)
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, torch.rand(6, generator=generator) + 0.5)
        self.gain = nn.Parameter(torch.rand(1, 6, 1, 1, generator=generator) + 0.5)
        self.shift = nn.Parameter(torch.rand(6, 1, 1, generator=generator) + 0.5)
        self.one = nn.Parameter(torch.rand(1, generator=generator) + 0.5)
        self.double().eval()

    def forward(self, x: torch.Tensor) -> Any:
        made = self.code(self, self.conv(x))
        return (self.last(made[0]), made[1]) if isinstance(made, tuple) else self.last(made)


def along(t: torch.Tensor) -> torch.Tensor:
    return t.reshape(1, -1, 1, 1)


def frozen(m: Net, x: torch.Tensor) -> torch.Tensor:
    """Batch normalisation as DETR and torchvision write it."""
    weight, bias, var, mean = along(m.weight), along(m.bias), along(m.running_var), along(m.running_mean)
    scale = weight * (var + 1e-5).rsqrt()
    return x * scale + (bias - mean * scale)


def frozen_in_detectron(m: Net, x: torch.Tensor) -> torch.Tensor:
    scale = m.weight * (m.running_var + 1e-5).rsqrt()
    bias = m.bias - m.running_mean * scale
    return x * along(scale).to(x.dtype) + along(bias).to(x.dtype)


def normalised(m: Net, x: torch.Tensor) -> torch.Tensor:
    whitened = (x - along(m.running_mean)) / torch.sqrt(along(m.running_var) + 1e-5)
    return along(m.weight) * whitened + along(m.bias)


FOLLOWED: dict[str, Code] = {
    "frozen": frozen,
    "frozen, as in detectron2": frozen_in_detectron,
    "by hand": normalised,
    "None around it": lambda m, x: x * (m.weight * m.running_var)[None, :, None, None],
    "dots in front": lambda m, x: x * m.weight[..., None, None] + m.shift[None, ...],
    "one more dimension at a time": lambda m, x: x * m.weight.unsqueeze(-1).unsqueeze(-1),
    "in front and behind": lambda m, x: x * m.weight.unsqueeze(0).unsqueeze(2).unsqueeze(dim=3),
    "worked out between them": lambda m, x: x * m.weight.unsqueeze(1).exp().unsqueeze(2) + m.shift.unsqueeze(0),
    "exp": lambda m, x: x * m.gain.exp(),
    "sigmoid": lambda m, x: x * torch.sigmoid(m.shift),
    "softplus": lambda m, x: x * nn.functional.softplus(m.gain, beta=2.0),
    "divided by": lambda m, x: x / (m.gain.abs() + 1),
    "turned round": lambda m, x: x * (1 / m.gain),
    "one less": lambda m, x: x * (1 - m.gain),
    "squared": lambda m, x: x * m.gain**2,
    "times one number": lambda m, x: x + m.shift * m.one * 2,
    "sum of two shapes": lambda m, x: x + (m.shift - along(m.bias).neg()),
    "quotient that is added": lambda m, x: x + along(m.bias) / m.gain,
    "by the other's number": lambda m, x: x * (m.weight * 2).view(1, m.weight.shape[0], 1, 1),
    "beside one number's own shape": lambda m, x: x * m.gain * m.one.view(1, -1, 1, 1).shape[1],
    "by its own number": lambda m, x: x * (s := m.weight * 2).view(1, s.shape[0], 1, 1),
    "copied": lambda m, x: x * m.gain.clone().detach().contiguous(),
    "multiplied where the other is wanted whole": lambda m, x: x / m.gain + m.gain * along(m.weight) * m.shift,
}


@pytest.mark.parametrize("code", FOLLOWED.values(), ids=FOLLOWED)
def test_what_is_worked_out_loses_the_channels(code: Code) -> None:
    graph = exact(Net(code))
    assert graph.layer("conv").free.all()
    small = compact(Net(code), random_plan(graph, 0), graph)
    assert small.conv.weight.shape[0] < 6


def double_in_place(m: Net, x: torch.Tensor) -> torch.Tensor:
    scale = m.weight * 2
    scale.mul_(torch.arange(6.0).double())
    return x * along(scale)


def kept(m: Net, x: torch.Tensor) -> torch.Tensor:
    if "scale" not in vars(m):
        m.scale = along(m.gain.exp()).detach()
    return x * m.scale


def kept_in_a_buffer(m: Net, x: torch.Tensor) -> torch.Tensor:
    if "scale" not in m._buffers:
        m.register_buffer("scale", m.gain.exp().detach())
    return x * m.scale


def updated(m: Net, x: torch.Tensor) -> torch.Tensor:
    y = x + along(m.bias)
    if m.training:
        m.bias = (m.bias + 1).detach()
    return y


WHOLE: dict[str, Code] = {
    "mixes numbers of channels": lambda m, x: x * along(m.weight.softmax(0)),
    "mixes them and keeps zero": lambda m, x: x * along((m.weight * 2).cumsum(0)),
    "adds what is never zero": lambda m, x: x + m.gain.exp(),
    "adds one to what it adds": lambda m, x: x + (m.gain + 1),
    "adds the quotient of the same": lambda m, x: x + m.gain / m.gain,
    "divides by what it adds": lambda m, x: x / m.gain + m.gain,
    "written into": double_in_place,
    "another row for each": lambda m, x: x * torch.stack((m.weight * 2, m.bias * 2))[0].view(1, -1, 1, 1),
    "an operator that knows nothing of it": lambda m, x: torch.where(x > 0, x, along(m.weight * 2)),
    "beside a constant": lambda m, x: x * along(m.weight * torch.arange(6.0).double()),
    "behind a constant": lambda m, x: x * along(torch.arange(6.0).double() * m.weight),
    "adds what is never zero first": lambda m, x: x + (m.gain.exp() + along(m.bias)),
    "called by names": lambda m, x: x * torch.exp(input=m.gain),
    "called by a name that keeps zero": lambda m, x: x * torch.abs(input=m.gain),
    "a number for each of two dimensions": lambda m, x: x[..., :6] * (m.gain * m.weight),
    "with an argument of its own": lambda m, x: x + torch.add(m.gain, m.shift, alpha=2),
    "along a dimension of equal length": lambda m, x: x[..., :6] * (m.weight * 2) * along(m.weight * 2),
    "itself along a dimension of equal length": lambda m, x: x[..., :6] * m.weight * along(m.weight),
    "a row of it alone": lambda m, x: x * m.gain[0] * m.shift.unsqueeze(0)[:, ::1, :, 0].unsqueeze(-1),
    "along another dimension": lambda m, x: x[..., :6] * m.weight.unsqueeze(0) * m.weight.unsqueeze(1).unsqueeze(2),
    "kept in an attribute": kept,
    "kept in a buffer": kept_in_a_buffer,
    "written back in training": updated,
    "returned": lambda m, x: (x * m.gain, m.gain),
    "returned and worked out": lambda m, x: (x * m.gain, m.gain.exp()),
    "a power of its own": lambda m, x: x * m.gain**m.shift,
}


@pytest.mark.parametrize("code", WHOLE.values(), ids=WHOLE)
def test_what_cannot_be_zero_or_is_not_known_keeps_them(code: Code) -> None:
    graph = exact(Net(code))
    assert not graph.layer("conv").free.any()


def test_a_number_for_all_channels_is_none_for_each() -> None:
    """A parameter of one number is followed as it was, in whatever shape."""
    graph = exact(Net(lambda m, x: x * m.one.view(1, 1, 1, 1)))
    assert graph.layer("conv").free.all()


def test_what_is_worked_out_and_not_used_pins_nothing_but_what_is_read_does() -> None:
    def code(m: Net, x: torch.Tensor) -> torch.Tensor:
        m.weight * 2
        return x * along(m.weight)

    assert exact(Net(code)).layer("conv").free.all()
    read = Net(lambda m, x: x * along(m.weight) * (m.weight * 2).sum())
    assert not trace(read, X).layer("conv").free.any()


@pytest.mark.parametrize(
    "code",
    [
        lambda m, x: x.sigmoid() * (m.gain * x.shape[-1] ** -0.5),
        lambda m, x: x.sigmoid() * m.gain.clamp(max=0.1 * x.shape[-1]),
        lambda m, x: x.sigmoid() * (m.gain * len(x)),
        lambda m, x: x.sigmoid() * (m.gain * (2 if m.training else 3)),
        lambda m, x: x.sigmoid() * (m.gain if m.training else along(m.weight)),
    ],
)
def test_a_constant_that_is_another_in_another_pass_is_none(code: Code) -> None:
    """It went into the next layer's bias as it was in one."""
    net = Net(code)
    graph = exact(net)
    plan = random_plan(graph, 0)
    both = (mask(net, plan, graph).train(), compact(net, plan, graph).train())
    assert torch.allclose(*(model(X) for model in both))


def test_an_index_is_no_shape() -> None:
    """``(w * 2)[[1, -1]]`` passed for a view of two numbers."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.last, self.weight = nn.Conv2d(3, 2, 1), nn.Conv2d(2, 2, 1), nn.Parameter(torch.rand(2))
            self.double().eval()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.conv(x) * along((self.weight * 2)[[1, -1]]))  # type: ignore[no-any-return]

    assert not exact(Two()).layer("conv").free.any()
