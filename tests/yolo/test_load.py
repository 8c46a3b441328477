"""Detectors load from everything Ultralytics has, and everything else says on one line what it is."""

from __future__ import annotations

import io
import zipfile
from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from ultralytics import YOLO

from seqprune.errors import ModelError, UntrustedError
from seqprune.yolo.files import bounded
from seqprune.yolo.files.load import load
from seqprune.yolo.files.save import save_pt

NAMES = {0: "green", 1: "red"}


@pytest.fixture
def checkpoint(tiny: nn.Module, tmp_path: Path) -> Path:
    return save_pt(tiny, tmp_path / "tiny.pt", names=NAMES)


def test_a_checkpoint_loads_as_float32_in_eval_mode(checkpoint: Path, tiny: nn.Module) -> None:
    loaded = load(checkpoint)
    assert loaded.names == NAMES
    assert loaded.stride == 32
    assert loaded.source == str(checkpoint)
    assert loaded.checkpoint is not None
    assert "model" not in loaded.checkpoint
    assert not loaded.model.training
    rounded = tiny.half().float()  # as the file holds it
    for name, tensor in loaded.model.state_dict().items():
        assert torch.equal(tensor, rounded.state_dict()[name])


def test_the_ema_is_preferred(checkpoint: Path, tmp_path: Path) -> None:
    content = torch.load(checkpoint, weights_only=False)
    averaged = torch.load(checkpoint, weights_only=False)["model"]
    for parameter in averaged.parameters():
        parameter.data.fill_(0.5)
    torch.save({**content, "ema": averaged.half()}, tmp_path / "ema.pt")
    loaded = load(tmp_path / "ema.pt").model
    assert all((parameter == 0.5).all() and parameter.dtype is torch.float32 for parameter in loaded.parameters())


@pytest.mark.parametrize(
    ("said", "size"),
    [(320, 320), (None, 640), (16, 640), (True, 640), ([320, 320], 640), (10**9, 640)],
)
def test_images_are_of_the_size_that_it_was_trained_with(
    checkpoint: Path, tmp_path: Path, said: object, size: int
) -> None:
    """As ``YOLO(path).val()`` takes them; what cannot be a size is not believed."""
    content = torch.load(checkpoint, weights_only=False)
    content["train_args"] = {} if said is None else {"imgsz": said}
    torch.save(content, tmp_path / "trained.pt")
    assert load(tmp_path / "trained.pt").imgsz == size


def test_without_a_file_images_are_of_the_size_that_is_trained_with() -> None:
    assert load("yolov8n.yaml").imgsz == 640
    assert load("yolov8n-cls.yaml", tasks=("classify",)).imgsz == 224


def test_a_model_yaml_gives_random_weights() -> None:
    loaded = load("yolov8n.yaml")
    assert len(loaded.names) == 80
    assert loaded.checkpoint is None


def test_objects_are_copied(checkpoint: Path, tiny: nn.Module) -> None:
    opened = YOLO(checkpoint)
    for given, inner in ((opened, opened.model), (tiny, tiny)):
        loaded = load(given).model
        next(loaded.parameters()).data.zero_()
        assert next(inner.parameters()).any()


def test_requires_grad_stays_as_found(tiny: nn.Module) -> None:
    wanted = [parameter.requires_grad for parameter in tiny.parameters()]
    assert [parameter.requires_grad for parameter in load(tiny).model.parameters()] == wanted


def test_a_model_that_ran_in_inference_mode_can_be_trained(tiny: nn.Module) -> None:
    with torch.inference_mode():
        tiny(torch.zeros(1, 3, 64, 64))
    loaded = load(tiny).model
    loaded(torch.zeros(1, 3, 64, 64))[0].sum().backward()


def _file(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def _saved(folder: Path, value: object) -> Path:
    torch.save(value, folder / "other.pt")
    return folder / "other.pt"


def _script(folder: Path) -> Path:
    torch.jit.script(nn.ReLU()).save(folder / "script.pt")
    return folder / "script.pt"


def _broken_archive(folder: Path) -> Path:
    buffer = io.BytesIO()
    torch.save({"model": torch.zeros(1000)}, buffer)
    return _file(folder, "cut.pt", buffer.getvalue()[:2000])


def _foreign_archive(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "zip.pt", "w") as archive:
        archive.writestr("readme.txt", "hello")
    return folder / "zip.pt"


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda folder: folder / "absent.pt", "no such file"),
        (lambda folder: folder / "absent.yaml", "no such model YAML"),
        (lambda folder: folder, "end in .pt"),
        (lambda folder: _file(folder, "m.onnx", b"x"), "ONNX model has no layers"),
        (lambda folder: _file(folder, "m.bin", b"x"), "end in .pt"),
        (lambda folder: _file(folder, "m.pt", b""), "the file is empty"),
        (lambda folder: _file(folder, "m.pt", b"hello, I am text"), "not a PyTorch checkpoint"),
        (
            lambda folder: _file(folder, "m.pt", b"version https://git-lfs.github.com/spec/v1\n"),
            "git lfs pull",
        ),
        (lambda folder: _file(folder, "m.pt", b"\x80\x02damaged"), "cannot be unpickled"),
        (_broken_archive, "probably cut short"),
        (_foreign_archive, "cannot be unpickled"),
        (_script, "TorchScript"),
        (lambda folder: _saved(folder, {"weights": torch.zeros(1)}), r"without a model \(keys: weights\)"),
        (
            lambda folder: _saved(folder, {"model": {"a": torch.zeros(1)}}),
            "holds a dict where the model should be",
        ),
        (lambda folder: _saved(folder, {"model": nn.Linear(1, 1)}), "not an Ultralytics detector"),
        (lambda folder: _file(folder, "m.yaml", b"nc: 3\n"), "cannot be built"),
    ],
)
def test_what_is_no_detector_is_refused_on_one_line(make, expected: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=expected) as caught:
        load(make(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("architecture", "task"),
    [("yolov8n-seg", "segment"), ("yolov8n-pose", "pose"), ("yolov8n-cls", "classify")],
)
def test_another_task_is_named(architecture: str, task: str) -> None:
    with pytest.raises(ModelError, match=f"a model for {task}, not for detection"):
        load(f"{architecture}.yaml")


def test_a_fused_model_is_refused(tiny: nn.Module) -> None:
    with pytest.raises(ModelError, match="BatchNorm layers were fused"):
        load(tiny.fuse(verbose=False))


def test_names_are_for_a_terminal_and_the_network_knows_its_task(tiny: Any) -> None:
    del tiny.task
    tiny.names = {"0": "x" * 300, 1: "x" * 301 + "\x1b"}
    loaded = load(tiny)
    assert loaded.names == {0: "x" * 300, 1: "x" * 299 + "…"}
    assert loaded.model.task == loaded.task == "detect"
    assert (loaded.source, loaded.stride) == ("DetectionModel", 32)


def test_what_may_not_be_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: Path, *_: object) -> None:
        raise PermissionError("Permission denied")

    path = _file(tmp_path, "m.pt", b"PK")
    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(ModelError, match=r"cannot be read \(Permission denied\); check its permissions"):
        load(path)


def test_a_plain_module_is_refused() -> None:
    with pytest.raises(ModelError, match="not an Ultralytics detector"):
        load(nn.Linear(1, 1))


@pytest.mark.real
def test_the_official_weights_load(real: Path) -> None:
    loaded = load(real / "weights" / "yolov8n.pt")
    assert loaded.names[0] == "person"
    assert loaded.checkpoint is not None
    assert loaded.checkpoint["train_args"]["imgsz"] == 640


def test_a_seed_fixes_random_weights_and_leaves_the_generator() -> None:
    before = torch.get_rng_state()
    one, same, other = (load("yolov8n.yaml", seed=seed).model.state_dict()["model.0.conv.weight"] for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_fused_file_is_refused_because_its_batchnorm_is_gone(tiny: nn.Module, tmp_path: Path) -> None:
    """It was "untrusted": the layers' other forward, which fuse() puts in its place, is no name that is let through."""
    fused = deepcopy(tiny).fuse(verbose=False)
    torch.save({"model": fused, "ema": None, "train_args": {}}, tmp_path / "fused.pt")
    for given in (tmp_path / "fused.pt", fused):
        with pytest.raises(ModelError, match="BatchNorm layers were fused away") as caught:
            load(given)
        assert "trust" not in str(caught.value)


def test_a_whole_object_and_hooks_of_torch_prune_are_named_for_what_they_are(tiny: nn.Module, tmp_path: Path) -> None:
    """Both were "neither a layer nor data", and an object with hooks "only tensors created explicitly by the user"."""
    yolo = YOLO("yolov8n.yaml", verbose=False)
    yolo.model = tiny
    torch.save(yolo, tmp_path / "whole.pt")
    with pytest.raises(UntrustedError, match=r"whole YOLO object: save the network alone"):
        load(tmp_path / "whole.pt")
    conv: Any = tiny.get_submodule("model.1.conv")
    torch.nn.utils.prune.l1_unstructured(conv, "weight", 0.5)
    torch.save({"model": tiny, "train_args": {}}, tmp_path / "hooks.pt")
    with pytest.raises(UntrustedError, match=r"left its hooks in the network: call its remove\(\)"):
        load(tmp_path / "hooks.pt")
    with pytest.raises(ModelError, match=r"model\.1\.conv makes its weight anew in every call"):
        load(yolo)


def test_an_object_that_keeps_what_it_computed_is_copied(tiny: nn.Module) -> None:
    tiny.kept = tiny(torch.rand(1, 3, 64, 64).requires_grad_())
    assert load(tiny).model is not tiny


@pytest.mark.parametrize("more", [0, 1])
def test_its_trial_costs_what_64_pixels_do(
    checkpoint: Path, tiny: nn.Module, monkeypatch: pytest.MonkeyPatch, more: int
) -> None:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        tiny(torch.zeros(1, 3, 64, 64))
    most = counter.get_total_flops() // 2
    monkeypatch.setattr(bounded, "_MULTIPLICATIONS", most - more)
    with pytest.raises(ModelError, match="multiplications on one small image") if more else nullcontext():
        load(checkpoint)
