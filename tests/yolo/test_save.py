"""What is saved opens in plain Ultralytics, exactly as it was, where there is no seqprune."""

from __future__ import annotations

import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import nn

from seqprune.errors import InputError, ModelError
from seqprune.yolo.files.load import load
from seqprune.yolo.files.save import bytes_of, save_pt

NAMES = {0: "green", 1: "red"}

WITHOUT_SEQPRUNE = """
import sys
sys.modules["seqprune"] = None
import torch
from ultralytics import YOLO
weights, data, image, folder = sys.argv[1:]
model = YOLO(weights)
expected = torch.load(image, weights_only=True)
with torch.no_grad():
    assert torch.equal(model.model(expected["image"])[0], expected["output"])
common = dict(imgsz=64, device="cpu", verbose=False, project=folder)
model.val(data=data, plots=False, **common)
assert model.predict(expected["image"], **common)[0].names == {0: "green", 1: "red"}
exported = YOLO(weights).export(format="onnx", imgsz=64, simplify=False, opset=17)
import onnxruntime
session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
(found,) = session.run(None, {session.get_inputs()[0].name: expected["image"].numpy()})
assert abs(found - expected["output"].numpy()).max() < 1e-3
assert "seqprune" not in {name.partition(".")[0] for name, module in sys.modules.items() if module}
"""


def rounded(model: nn.Module) -> nn.Module:
    """The network as half precision leaves it, in float32."""
    return deepcopy(model).half().float()


@pytest.mark.slow
def test_plain_ultralytics_loads_validates_predicts_and_exports(
    tiny: nn.Module, narrow, narrow_plan, data_yaml: Path, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    small = rounded(narrow(tiny))
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        output = small(image)[0]
    torch.save({"image": image, "output": output}, tmp_path / "expected.pt")
    path = save_pt(small, tmp_path / "small.pt", names=NAMES, plan_json=narrow_plan.to_json(), train_args={"imgsz": 64})
    arguments = [str(part) for part in (path, data_yaml, tmp_path / "expected.pt", tmp_path / "runs")]
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", WITHOUT_SEQPRUNE, *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("half", [True, False])
def test_a_saved_model_comes_back_in_float32_with_its_plan(
    tiny: nn.Module, narrow, narrow_plan, tmp_path: Path, half: bool
) -> None:
    small, text = narrow(tiny), narrow_plan.to_json()
    path = save_pt(
        small, tmp_path / "small.pt", names=NAMES, plan_json=text, train_args={"imgsz": 64, "odd": 1}, half=half
    )
    small = rounded(small) if half else small
    loaded = load(path)
    assert loaded.checkpoint is not None
    assert loaded.checkpoint["seqprune_plan"] == text
    assert loaded.plan == narrow_plan
    assert loaded.model.yaml == tiny.yaml
    assert loaded.checkpoint["train_args"] == {"imgsz": 64, "task": "detect"}
    assert loaded.names == NAMES
    for name, tensor in loaded.model.state_dict().items():
        assert tensor.dtype == small.state_dict()[name].dtype
        assert torch.equal(tensor, small.state_dict()[name])


def test_a_file_is_of_half_the_size_as_ultralytics_saves_it(tiny: nn.Module, tmp_path: Path) -> None:
    """Pruned weights were saved in float32: 6.5 MB became 10.3 MB for 80 % of the parameters."""
    half, whole = (save_pt(tiny, tmp_path / f"{half}.pt", names=NAMES, half=half) for half in (True, False))
    size = sum(tensor.numel() for tensor in tiny.state_dict().values() if tensor.is_floating_point())
    assert whole.stat().st_size - half.stat().st_size == pytest.approx(2 * size, rel=0.02)
    assert bytes_of(tiny, names=NAMES) == half.stat().st_size


def test_masked_channels_are_zero_in_half_precision_too(tiny: nn.Module, mask, is_dead, tmp_path: Path) -> None:
    mask(tiny)
    assert is_dead(load(save_pt(tiny, tmp_path / "m.pt", names=NAMES)).model)


def test_numbers_beyond_half_precision_are_kept(tiny: nn.Module, tmp_path: Path) -> None:
    """A running variance of 70,000 would come back as infinity: every output of its channel a bias."""
    tiny.get_submodule("model.0.bn").running_var[0] = 70_000.0
    loaded = load(save_pt(tiny, tmp_path / "m.pt", names=NAMES)).model
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, tiny.state_dict()[name])


def test_a_model_that_ran_in_inference_mode_is_saved(tiny: nn.Module, tmp_path: Path) -> None:
    with torch.inference_mode():
        tiny(torch.zeros(1, 3, 64, 64))
    loaded = load(save_pt(tiny, tmp_path / "m.pt", names=NAMES)).model
    loaded(torch.zeros(1, 3, 64, 64))[0].sum()


def test_saving_leaves_the_model_and_no_other_file(tiny: nn.Module, tmp_path: Path) -> None:
    wanted = [parameter.requires_grad for parameter in tiny.parameters()]
    save_pt(tiny, tmp_path / "m.pt", names={0: "a", 1: "b"})
    assert tiny.names == NAMES
    assert [parameter.requires_grad for parameter in tiny.parameters()] == wanted
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.pt"]


def test_a_failed_save_keeps_the_old_file(tiny: nn.Module, tmp_path: Path) -> None:
    path = save_pt(tiny, tmp_path / "m.pt", names=NAMES)
    before = path.read_bytes()
    tiny.helper = lambda: None
    with pytest.raises(ModelError, match="cannot be pickled"):
        save_pt(tiny, path, names=NAMES)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.pt"]


def test_an_object_of_ours_is_not_saved(tiny: nn.Module, tmp_path: Path) -> None:
    tiny.note = InputError
    with pytest.raises(ModelError, match=r"seqprune\.errors\.InputError"):
        save_pt(tiny, tmp_path / "m.pt", names=NAMES)
    assert not any(tmp_path.iterdir())


def test_impossible_paths_are_refused(tiny: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="end in"):
        save_pt(tiny, tmp_path / "m.pth", names=NAMES)
    with pytest.raises(InputError, match="cannot be written"):
        save_pt(tiny, tmp_path / "absent" / "m.pt", names=NAMES)
