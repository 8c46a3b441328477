"""Preset accurate takes channels also where a number for each stands between two layers: that reads none of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.ops.misc import FrozenBatchNorm2d

import seqprune


class Scale(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(channels) + 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weight.view(1, -1, 1, 1)


class Frozen(FrozenBatchNorm2d):
    """As code of its own, which the class of torchvision is known without."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        bias = self.bias - self.running_mean * scale
        return x * scale.view(1, -1, 1, 1) + bias.view(1, -1, 1, 1)


@pytest.mark.parametrize("between", [nn.PReLU, Scale, Frozen, FrozenBatchNorm2d])
@pytest.mark.parametrize(
    "how", [{"preset": "accurate"}, {"preset": "fast", "criterion": "obs"}], ids=["accurate", "obs"]
)
def test_channels_behind_it_leave(between: Callable[[int], nn.Module], how: dict[str, Any]) -> None:
    torch.manual_seed(0)
    head = (nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    model = nn.Sequential(nn.Conv2d(3, 16, 3), between(16), nn.Conv2d(16, 8, 3), *head).eval()
    images = [(torch.randn(4, 3, 16, 16), torch.randint(0, 4, (4,))) for _ in range(4)]
    result = seqprune.prune(model, images, target="flops=0.6", protect=("2",), **how)
    small: Any = result.model
    assert small[0].out_channels == 8
    assert small[1].weight.numel() == 8
    assert result.record.verify.max_rel < 1e-4


@pytest.mark.parametrize(
    "how", [{"preset": "accurate"}, {"preset": "fast", "criterion": "obs"}], ids=["accurate", "obs"]
)
def test_channels_that_a_convolution_in_groups_reads_leave_by_what_each_of_its_groups_loses(
    how: dict[str, Any],
) -> None:
    """Half of a ResNeXt or a RegNet could not be seen, and stayed."""
    torch.manual_seed(0)
    head = (nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    model: Any = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 3, groups=2), *head).eval()
    unread = [1, 5, 8 + 2, 8 + 7]
    with torch.no_grad():
        model[2].weight[:4, [1, 5]] = 0
        model[2].weight[4:, [2, 7]] = 0
    images = [(torch.randn(4, 3, 16, 16), torch.randint(0, 4, (4,))) for _ in range(4)]
    result = seqprune.prune(model, images, target="flops=0.76", protect=("2",), round_to=1, recover="none", **how)
    assert sorted(set(range(16)) - set(result.plan.keep["0"])) == unread
    assert result.record.verify.max_rel < 1e-4


@pytest.mark.parametrize("bias", [True, False])
def test_channels_that_a_transposed_convolution_reads_leave_and_it_makes_up_for_them(bias: bool) -> None:
    """Half of the channels of a U-Net could not be seen, and stayed."""
    torch.manual_seed(0)
    model: Any = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.ConvTranspose2d(8, 5, 2, 2, bias=bias), nn.Conv2d(5, 4, 1)
    )
    with torch.no_grad():  # half of them are the others once more
        model[0].weight[4:], model[0].bias[4:] = model[0].weight[:4], model[0].bias[:4]
    images = [(torch.randn(8, 3, 16, 16), torch.zeros(8)) for _ in range(4)]
    how: dict[str, Any] = {"preset": "accurate", "target": "flops=0.6", "protect": ("2",), "round_to": 1}
    fitted, plain = (seqprune.prune(model.eval(), images, recover=way, **how) for way in ("ls", "none"))
    assert fitted.plan == plain.plan
    assert fitted.model[0].out_channels == 4
    with torch.no_grad():
        wanted = model(images[0][0])
        errors = [float((each.model(images[0][0]) - wanted).norm() / wanted.norm()) for each in (fitted, plain)]
    assert errors[0] < 0.05 < 0.15 < errors[1]  # the ridge holds the rest back
