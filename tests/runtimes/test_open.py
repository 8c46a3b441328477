"""Small networks in the runtimes that are installed here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from seqprune.errors import InputError, ModelError
from seqprune.runtimes import where as places
from seqprune.runtimes.export import exported
from seqprune.runtimes.open import kind_of, opened, threads_of
from seqprune.runtimes.program import Free
from seqprune.runtimes.where import RUNTIMES, Where

ELSEWHERE = [name for name in RUNTIMES if name not in ("torch", "tensorrt")]
IMAGE = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """Two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.second(nn.functional.silu(self.first(x)))
        return y


@pytest.mark.parametrize("runtime", ELSEWHERE)
def test_a_module_runs_elsewhere_as_it_does_here(runtime: str, tmp_path: Path) -> None:
    pytest.importorskip(RUNTIMES[runtime])
    if runtime == "ncnn":
        pytest.importorskip("pnnx")
    net = Net().eval()
    where = Where(runtime, 1, full=True).settled()
    program = opened(exported(net, IMAGE, runtime, tmp_path), where, IMAGE)
    assert program.shapes == ((1, 3, 16, 16),)
    seen = program.run()
    if runtime == "ncnn":
        return  # a pass of it keeps its result inside
    values = next(iter(seen.values())) if hasattr(seen, "values") else seen[0]  # type: ignore[index]
    np.testing.assert_allclose(np.asarray(values), net(IMAGE).detach().numpy(), rtol=1e-3, atol=1e-4)


def test_what_a_file_leaves_open_is_filled_in() -> None:
    assert Free(64, 2).shape([None, 3, "height", -1]) == (2, 3, 64, 64)
    assert Free(64).shape([1, 1, 32, 48]) == (1, 1, 32, 48)


def test_a_file_that_is_none_is_said_in_one_line(tmp_path: Path) -> None:
    """ONNX Runtime's errors have no base but Exception: one ended as a bug of ours."""
    pytest.importorskip("onnxruntime")
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(b"\x08\x01nothing")
    with pytest.raises(ModelError, match=r"damaged\.onnx: onnxruntime does not run it .*; export it anew") as caught:
        opened(damaged, Where("onnxruntime").settled(), IMAGE)
    assert "\n" not in str(caught.value)


def test_kinds_are_told_by_names(tmp_path: Path) -> None:
    for name in ("ir/net.xml", "nc/net.ncnn.param", "none/net.txt"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    assert [kind_of(tmp_path / name) for name in ("ir", "nc", "none")] == ["openvino", "ncnn", ""]
    assert [kind_of(Path(name)) for name in ("a.onnx", "a.pt", "a.ENGINE")] == ["onnx", "", "engine"]
    with pytest.raises(InputError, match="onnxruntime opens onnx, not this"):
        opened(Path("a.engine"), Where("onnxruntime"), IMAGE)


@pytest.mark.parametrize(
    ("where", "said"),
    [
        (Where("tflite"), "runtime='tflite' is not known: choose torch"),
        (Where("tensorrt"), "pip install tensorrt"),
    ],
)
def test_a_runtime_that_is_not_there_is_said(where: Where, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "is_installed", lambda name: name != "tensorrt")
    with pytest.raises(InputError, match=said):
        where.settled()


def test_threads_are_put_back() -> None:
    before = torch.get_num_threads()
    with threads_of(Where(threads=before + 1)):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    with pytest.raises(InputError, match="threads=0"):
        Where(threads=0)
