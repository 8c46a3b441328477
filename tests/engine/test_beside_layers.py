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


class Padding(nn.ConvTranspose2d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return super().forward(nn.functional.pad(x, (1, 1, 1, 1)))


class Cropping(nn.ConvTranspose2d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return super().forward(x)[..., :-1]


class Flat(nn.ConvTranspose2d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return super().forward(x).flatten(2)


class Pair(nn.ConvTranspose2d):
    def forward(self, x: torch.Tensor) -> Any:  # type: ignore[override]
        return super().forward(x), x


class Ends(nn.Module):
    """A convolution, an upsampling that is called as it comes, and a reader."""

    def __init__(self, up: nn.Module, code: Callable[[Any, torch.Tensor], Any]) -> None:
        super().__init__()
        self.first, self.up, self.last, self.code = nn.Conv2d(3, 8, 3), up, nn.Linear(6, 4), code

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made = self.code(self.up, self.first(x).relu())
        return self.last((made[0] if isinstance(made, tuple) else made).flatten(2).mean(2))  # type: ignore[no-any-return]


UPS: dict[str, Callable[[], Ends]] = {
    "one cell more": lambda: Ends(
        nn.ConvTranspose2d(8, 6, 2, 2), lambda up, x: up(x, output_size=[2 * x.shape[2] + 1] * 2)
    ),
    "its own size": lambda: Ends(nn.ConvTranspose2d(8, 6, 2, 2), lambda up, x: up(x, output_size=[2 * x.shape[2]] * 2)),
    "by name": lambda: Ends(nn.Conv2d(8, 6, 1), lambda up, x: up(input=x)),
    "pads": lambda: Ends(Padding(8, 6, 2, 2), lambda up, x: up(x)),
    "crops": lambda: Ends(Cropping(8, 6, 2, 2), lambda up, x: up(x)),
    "flattens": lambda: Ends(Flat(8, 6, 2, 2), lambda up, x: up(x)),
    "two tensors": lambda: Ends(Pair(8, 6, 2, 2), lambda up, x: up(x)),
}


@pytest.mark.parametrize("made", UPS.values(), ids=UPS)
def test_a_layer_that_is_called_in_its_own_way_is_read_or_left(made: Callable[[], Ends]) -> None:
    """They ended in errors of Python's and torch's."""
    images = [(torch.randn(4, 3, 10, 10), torch.randint(0, 4, (4,))) for _ in range(4)]
    for how in ({"preset": "accurate"}, {"preset": "fast", "recover": "ls"}):
        result = seqprune.prune(made().eval(), images, target="flops=0.7", round_to=1, **how)  # type: ignore[arg-type]
        assert result.record.verify.max_rel < 1e-4


def test_of_a_weight_that_two_layers_read_in_their_own_ways_the_channels_stay() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.rest = nn.Conv2d(3, 12, 1), nn.Conv2d(3, 12, 1)
            self.groups, self.dense = nn.Conv2d(12, 8, 3, groups=4), nn.Conv2d(3, 8, 3)
            self.dense.weight = self.groups.weight
            self.last = nn.Conv2d(8, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.first(x)
            return self.last(self.groups(y) + self.dense(y[:, :3])) + self.rest(x)[:, :4, 1:-1, 1:-1]  # type: ignore[no-any-return]

    images = [(torch.randn(4, 3, 8, 8), torch.zeros(4)) for _ in range(4)]
    result = seqprune.prune(Shared().eval(), images, preset="accurate", target="flops=0.95", round_to=1)
    assert "first" not in result.plan.keep
