"""Weights for a network that was built: they fit, or one line says what does not; nothing in the file is run."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import seqprune
from seqprune.errors import ModelError, UntrustedError
from seqprune.sources.weights import give_weights


def net(width: int = 16) -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 4)),
    ).eval()


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def saved(path: Path, tensors: Any) -> Path:
    save_file(tensors, path) if path.suffix == ".safetensors" else torch.save(tensors, path)
    return path


@pytest.mark.parametrize(
    ("name", "wrap"),
    [
        ("w.safetensors", lambda tensors: tensors),
        ("w.pt", lambda tensors: tensors),
        ("w.pth", lambda tensors: {"state_dict": tensors, "epoch": 3, "optimizer": {"lr": 0.1}}),
        ("w.bin", lambda tensors: {"model": {f"module.{key}": value for key, value in tensors.items()}}),
        ("w.pt", lambda tensors: {k: v for k, v in tensors.items() if "num_batches" not in k}),
    ],
)
def test_tensors_come_where_they_belong(tmp_path: Path, name: str, wrap: Any) -> None:
    wanted, given = net(), net()
    give_weights(given, saved(tmp_path / name, wrap(state(wanted))))
    assert all(torch.equal(tensor, given.state_dict()[key]) for key, tensor in state(wanted).items())


def test_what_seqprune_saved_brings_its_widths(tmp_path: Path) -> None:
    model = net(32)
    result = seqprune.prune(model, [torch.rand(4, 3, 8, 8)], preset="fast", target="params=0.6")
    result.save(tmp_path / "small.safetensors")
    again = give_weights(net(32), tmp_path / "small.safetensors")
    x = torch.rand(2, 3, 8, 8)
    assert again[0].out_channels == result.model[0].out_channels < 32
    assert torch.equal(again(x), result.model(x))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s | {"0.weight": torch.zeros(8, 3, 3, 3)}, r"0.weight is \[8, 3, 3, 3\], and \[16, 3, 3, 3\]"),
        (lambda s: {k: v for k, v in s.items() if k != "5.bias"}, "1 tensors of the network are not in it.*5.bias"),
        (lambda s: s | {"6.bias": torch.zeros(1)}, "1 of its tensors are not the network's, such as 6.bias"),
    ],
)
@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_weights_of_another_network_are_one_line(tmp_path: Path, name: str, change: Any, said: str) -> None:
    model = net()
    before = state(model)
    with pytest.raises(ModelError, match=said):
        give_weights(model, saved(tmp_path / name, change(state(model))))
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


class Harm:
    """A pickle that writes a file when it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("old", [False, True])
def test_nothing_in_a_file_is_run(tmp_path: Path, old: bool) -> None:
    mark = tmp_path / "ran"
    path = tmp_path / "w.pt"
    torch.save({"0.weight": Harm(mark)}, path, _use_new_zipfile_serialization=not old)
    with pytest.raises(UntrustedError, match="may run code"):
        give_weights(net(), path)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("w.safetensors", b"no tensors", "holds no tensors"),
        ("w.pt", b"no pickle", "cannot be unpickled"),
        ("w.pt", pickle.dumps([1, 2]), "cannot be unpickled|no tensors by name"),
        ("w.onnx", b"", "weights end in .safetensors or .pt"),
        ("w.pt", None, "no such file"),
    ],
)
def test_a_file_without_tensors_is_one_line(tmp_path: Path, name: str, content: bytes | None, said: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=said):
        give_weights(net(), tmp_path / name)
    torch.save(net(), tmp_path / "whole.pt")
    with pytest.raises(ModelError, match=r"no tensors by name; save model\.state_dict"):
        give_weights(net(), tmp_path / "whole.pt")
