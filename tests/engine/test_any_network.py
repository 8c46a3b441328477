"""The best preset for any network: small ones are trained here, and keep their accuracy without training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

import seqprune
from seqprune.errors import ModelError

CLASSES, SIDE = 6, 20


def pictures(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Stripes, checks and blobs of one of two colours on noise: images, their class, and where the pattern is."""
    draw = torch.Generator().manual_seed(seed)
    kinds = torch.randint(0, CLASSES, (count,), generator=draw)
    images = 0.6 * torch.randn(count, 3, SIDE, SIDE, generator=draw)
    where = torch.zeros(count, SIDE, SIDE, dtype=torch.int64)
    rows, columns = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    for image, kind in enumerate(kinds.tolist()):
        top, left = torch.randint(0, SIDE - 10, (2,), generator=draw).tolist()
        pattern = (rows, columns, rows + columns)[kind % 3] // 2 % 2
        inside = torch.zeros(SIDE, SIDE, dtype=torch.bool)
        inside[top : top + 10, left : left + 10] = True
        images[image, kind // 3] += 1.6 * (pattern * inside)
        where[image][inside] = kind + 1
    return images, kinds, where


def block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one = block(3, 24), nn.Sequential(block(24, 24), block(24, 24))
        self.down, self.two = block(24, 48, 2), nn.Sequential(block(48, 48), block(48, 48))
        self.last = nn.Linear(48, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = self.down(x + self.one(x))
        x = x + self.two(x)
        return self.last(x.mean((2, 3)))


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = block(3, 24), block(24, 48, 2), block(48, 48)
        self.rise, self.up, self.last = nn.ConvTranspose2d(48, 48, 2, 2), block(72, 24), nn.Conv2d(24, CLASSES + 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        fine = self.one(x)
        return self.last(self.up(torch.cat([fine, self.rise(self.three(self.two(fine)))], 1)))


def trained(net: nn.Module, targets: int) -> nn.Module:
    """``targets``: 1 for classes of images, 2 for those of pixels."""
    data = pictures(1500, 0)
    optimizer = torch.optim.AdamW(net.parameters(), 3e-3)
    draw = torch.Generator().manual_seed(0)
    for _ in range(4):
        for pick in torch.randperm(1500, generator=draw).split(50):
            loss = functional.cross_entropy(net(data[0][pick]), data[targets][pick])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return net.eval()


@pytest.fixture(scope="module")
def residual() -> nn.Module:
    torch.manual_seed(0)
    return trained(Residual(), 1)


@pytest.fixture(scope="module")
def unet() -> nn.Module:
    torch.manual_seed(0)
    return trained(UNet(), 2)


def calibration() -> Iterator[torch.Tensor]:
    """No labels."""
    return iter(pictures(192, 1)[0].split(32))


def right(net: nn.Module, targets: int) -> float:
    data = pictures(400, 2)
    with torch.no_grad():
        return float((net(data[0]).argmax(1) == data[targets]).float().mean())


def pruned(net: nn.Module, target: str, **how: Any) -> seqprune.PruneResult:
    return seqprune.prune(net, calibration, preset="accurate", target=target, round_to=2, seed=0, **how)


@pytest.mark.slow
@pytest.mark.parametrize(("target", "least"), [("flops=0.8", 0.95), ("flops=0.6", 0.85)])
def test_a_residual_network_keeps_its_accuracy_without_training_or_labels(
    residual: nn.Module, target: str, least: float
) -> None:
    whole = right(residual, 1)
    assert whole > 0.8
    result = pruned(residual, target)
    assert result.after.gflops <= float(target[-3:]) * result.before.gflops
    kept = right(result.model, 1)
    assert kept >= least * whole
    plain = seqprune.prune(residual, calibration, preset="fast", target=target, round_to=2).model
    assert kept > right(plain, 1)


@pytest.mark.slow
def test_a_u_net_keeps_its_accuracy_without_training_or_labels(unet: nn.Module) -> None:
    whole = right(unet, 2)
    result = pruned(unet, "flops=0.6", outputs="logits", evaluate=lambda net: {"pixels": right(net, 2)})
    assert result.metrics["accuracy"]["pixels"] >= 0.95 * whole
    assert result.before.accuracy["pixels"] == whole


class Several(nn.Module):
    """Images in a list, a vector in a dictionary, and a flag that is no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.narrow = nn.Conv2d(3, 16, 3), nn.Linear(4, 16)
        self.join, self.last = nn.Linear(16, 16), nn.Linear(16, 5)

    def forward(self, images: list[torch.Tensor], about: dict[str, Any], loud: bool) -> torch.Tensor:
        seen = self.conv(torch.stack(images)).relu().mean((2, 3))
        total = seen + self.narrow(about["vector"]) * (2.0 if loud else 1.0)
        return self.last(self.join(total).relu())


def test_inputs_may_be_tuples_lists_and_dictionaries() -> None:
    draw = torch.Generator().manual_seed(0)

    def loader() -> list[Any]:
        images = [torch.rand(3, 12, 12, generator=draw) for _ in range(8)]
        return [((images, {"vector": torch.rand(8, 4, generator=draw)}, True), torch.arange(8) % 5)]

    result = seqprune.prune(Several().eval(), loader, preset="accurate", target="params=0.7", round_to=1, batch=4)
    assert result.after.params <= 0.7 * result.before.params
    assert result.record.verify.max_rel <= 1e-4
    inputs = loader()[0][0]
    assert result.model(*inputs).shape == (8, 5)


def test_a_masked_network_stays_masked_in_a_loop_of_ones_own(residual: nn.Module) -> None:
    result = pruned(residual, "params=0.8", recover="none", mode="mask")
    data = pictures(64, 3)
    model = result.model.train()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    handle = seqprune.keep_masked(model, result.plan, optimizer)
    for _ in range(3):
        functional.cross_entropy(model(data[0]), data[1]).backward()
        optimizer.step()
    handle.remove()
    small = seqprune.compact(model.eval(), result.plan)
    assert seqprune.verify(model, small, data[0][:2]).max_rel <= 1e-4


class Returning(nn.Module):
    """Two layers, and what code makes of them."""

    def __init__(self, code: Any) -> None:
        super().__init__()
        self.one, self.two, self.code = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 4, 1), code

    def forward(self, x: torch.Tensor) -> Any:
        return self.code(self, x)


def small(code: Any) -> seqprune.PruneResult:
    images = [(torch.rand(4, 3, 12, 12), torch.zeros(4)) for _ in range(8)]
    return seqprune.prune(Returning(code).eval(), images, preset="accurate", target="params=0.7", round_to=1)


def test_a_number_beside_the_outputs_counts_as_one() -> None:
    """As the log-determinant of a flow: it ended in an error of torch's."""
    result = small(lambda m, x: (m.two(m.one(x).relu()), x.mean()))
    assert result.after.params <= 0.7 * result.before.params


@pytest.mark.parametrize(
    "code",
    [
        lambda m, x: m.two(m.one(x).relu()).detach(),
        lambda m, x: torch.utils.checkpoint.checkpoint(m.two, m.one(x).relu(), use_reentrant=True),
    ],
    ids=["detached", "reentrant"],
)
def test_a_network_that_lets_no_gradient_through_is_told(code: Any) -> None:
    with pytest.raises(ModelError, match=r"errors are weighed by gradients .* take preset fast"):
        small(code)
