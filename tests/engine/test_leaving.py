"""Blocks left out by choice: those that add little go first, protected ones stay, a killed run goes on to the bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from seqprune.engine import leaving
from seqprune.engine.modules import restore
from seqprune.errors import InputError, LostError, ModelError
from seqprune.run import PruneResult, prune
from seqprune.surgery import compact
from seqprune.testing.networks import Unit, randomise

SIDE = 8


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.one, self.two = Unit(channels, channels), Unit(channels, channels, act=4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.two(self.one(x)))


class Net(nn.Module):
    """A ResNet of five blocks, of which the second and the fourth add next to nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Unit(3, 12)
        self.layer1 = nn.Sequential(*(Residual(12) for _ in range(5)))
        self.fc = nn.Linear(12, 4)
        randomise(self, 0)
        with torch.no_grad():
            for number in (1, 3):
                norm: Any = self.layer1[number].two.bn
                norm.weight.mul_(1e-3)
                norm.bias.mul_(1e-3)
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.layer1(self.stem(x)).mean((2, 3)))  # type: ignore[no-any-return]


@pytest.fixture
def images() -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(8, 3, SIDE, SIDE, generator=generator), torch.randint(0, 4, (8,), generator=generator))
        for _ in range(4)
    ]


def pruned(images: Any, **how: Any) -> PruneResult:
    return prune(Net(), images, **({"preset": "accurate", "target": "flops=0.62", "by": ("blocks",)} | how))


def test_blocks_alone_meet_the_target_with_those_that_add_least(images: Any) -> None:
    result = pruned(images)
    assert sorted(result.plan.blocks) == ["layer1.1", "layer1.3"]
    assert not result.plan.layers
    assert [step.layer for step in result.steps] == list(result.plan.blocks)
    assert result.steps[0].active_after == 0
    assert result.record.after.gflops <= 0.62 * result.record.before.gflops
    again = compact(Net(), result.plan)
    shapes = {n: t.shape for n, t in result.model.state_dict().items()}
    assert {n: t.shape for n, t in again.state_dict().items()} == shapes
    left = {entry["name"] for entry in result.record.network if entry["left_out"]}
    assert left == {f"{block}.{unit}.conv" for block in result.plan.blocks for unit in ("one", "two")}
    with torch.no_grad():
        x = images[0][0]
        whole, found = Net()(x), result.model(x)
    assert (found - whole).abs().max() < 0.02 * whole.abs().max()


def test_protected_blocks_stay_and_what_cannot_be_met_is_said(images: Any) -> None:
    result = pruned(images, protect=("layer1.1.one",), target="flops=0.81")
    assert result.plan.blocks == ("layer1.3",)
    with pytest.raises(InputError, match=r"without the 5 that may be left out .*% remain"):
        pruned(images, target="flops=0.01")


def test_beside_channels_they_are_taken_where_that_is_better(images: Any) -> None:
    """Two blocks of five for nothing: whatever channels lose is more."""
    result = pruned(images, by=("blocks", "channels"))
    assert sorted(result.plan.blocks) == ["layer1.1", "layer1.3"]
    assert result.record.settings["by"] == ["channels", "blocks"]


def test_where_every_block_adds_much_channels_go_alone(images: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaving._Leaving, "_number", lambda _self, blocks, _what, _find: float(len(blocks)) / 2)
    result = pruned(images, by=("channels", "blocks"), target="flops=0.9")
    assert result.plan.blocks == ()
    assert result.plan.layers


@pytest.mark.parametrize("trial", ["_alone_loss", "_with"])
def test_images_that_are_gone_are_told(images: Any, monkeypatch: pytest.MonkeyPatch, trial: str) -> None:
    """They passed for a block that cannot leave, and whatever else there was to try was taken."""
    real = getattr(leaving._Leaving, trial)

    def gone(self: Any, blocks: Any, *about: Any) -> Any:
        if blocks:
            raise LostError("an image is gone")
        return real(self, blocks, *about)

    monkeypatch.setattr(leaving._Leaving, trial, gone)
    with pytest.raises(LostError):
        pruned(images, by=("blocks", "channels"))


class Killed(BaseException):
    """Like a kill: nothing handles it."""


@pytest.mark.parametrize("at", [2, 7])
def test_a_killed_run_goes_on_to_the_bit(images: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, at: int) -> None:
    """What was tried before is not tried again."""
    whole = pruned(images, by=("channels", "blocks"))
    tried: list[tuple[str, ...]] = []
    real = leaving.Engine.tried

    def counted(self: Any, chosen: Any, relevance: Any = None) -> nn.Module:
        tried.append(chosen.plan.blocks)
        if len(tried) == at:
            raise Killed
        return real(self, chosen, relevance)

    monkeypatch.setattr(leaving.Engine, "tried", counted)
    with pytest.raises(Killed):
        pruned(images, by=("channels", "blocks"), folder=tmp_path)
    begun = len(tried)
    resumed = pruned(images, by=("channels", "blocks"), folder=tmp_path)
    assert begun == at
    assert tried[at - 1] == tried[at]
    assert json.loads(resumed.plan.to_json()) == json.loads(whole.plan.to_json())
    states = (result.model.state_dict() for result in (whole, resumed))
    assert all(torch.equal(one, other) for one, other in zip(*(s.values() for s in states), strict=True))


def test_what_is_saved_comes_back_into_the_network_as_it_is_built(images: Any, tmp_path: Path) -> None:
    result = pruned(images, by=("channels", "blocks"))
    path = result.save(tmp_path / "pruned.safetensors")
    back = restore(Net(), path)
    with torch.no_grad():
        assert torch.equal(back(images[0][0]), result.model(images[0][0]))
    path.with_suffix(".json").write_text("{}")
    with pytest.raises(ModelError, match="holds no plan"):
        restore(Net(), path)


def test_what_does_not_fit_leaves_the_network_alone(images: Any, tmp_path: Path) -> None:
    """Blocks were left out of it by then."""
    result = pruned(images, by=("channels", "blocks"))
    path = result.save(tmp_path / "pruned.safetensors")
    state = load_file(path)
    name = next(iter(state))
    for wrong in ({name: torch.zeros(1, 2, 3)}, {"more": torch.zeros(1)}):
        save_file(state | wrong, path)
        model = Net()
        before = str(model)
        with pytest.raises(ModelError):
            restore(model, path)
        assert str(model) == before
