"""Networks of four layers through every way in: what is the same whatever their size is asked of them."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from small import CONV, HEADS, QUERIES, described, network
from torch import nn
from ultralytics import RTDETR, YOLO
from ultralytics.nn.tasks import RTDETRDetectionModel, yaml_model_load

from seqprune.errors import ModelError, UntrustedError
from seqprune.yolo.files import load as loading
from seqprune.yolo.files import networks
from seqprune.yolo.files.load import check_there, load
from seqprune.yolo.files.networks import NETWORKS
from seqprune.yolo.files.save import save_pt
from seqprune.yolo.files.zoo import smallest_detectors

NAMES = {0: "green", 1: "red"}


def written(path: Path, description: dict[str, Any]) -> Path:
    path.write_text(json.dumps(description))
    return path


def saved(path: Path, model: Any, **beside: Any) -> Path:
    torch.save({"model": model, "ema": None, **beside}, path)
    return path


@pytest.mark.parametrize("task", HEADS)
def test_a_yaml_is_built_for_every_task_that_is_asked_for(task: str, tmp_path: Path) -> None:
    path = written(tmp_path / ("m.yml" if task == "pose" else "m.yaml"), described(task))
    loaded = load(path, tasks=(task,))
    assert type(loaded.model) is NETWORKS[task]
    assert (loaded.task, loaded.model.task) == (task, task)
    assert (loaded.source, loaded.checkpoint, loaded.plan) == (str(path), None, None)
    assert (loaded.stride, loaded.imgsz) == ((1, 224) if task == "classify" else (8, 640))
    assert not loaded.model.training
    if task != "detect":
        with pytest.raises(ModelError, match=f"is a model for {task}, not for detection; give one that is"):
            load(path)
        with pytest.raises(ModelError, match=f"is a model for {task}, not for detect, other; give one that is"):
            load(path, tasks=("detect", "other"))


def test_a_detector_of_queries_is_built_from_a_yaml_and_loaded_from_its_file(tmp_path: Path) -> None:
    path = written(tmp_path / "rt.yaml", described(backbone=[CONV] * 2, head=[CONV, QUERIES]))
    loaded = load(path)
    assert type(loaded.model) is RTDETRDetectionModel
    assert (loaded.task, loaded.stride) == ("detect", 32)
    again = load(save_pt(loaded.model, tmp_path / "rt.pt", names=NAMES))
    assert type(again.model) is RTDETRDetectionModel
    assert type(load(RTDETR(str(tmp_path / "rt.pt"))).model) is RTDETRDetectionModel


@pytest.mark.parametrize(
    ("names", "settings", "found"),
    [
        (("dog",), {"single_cls": True}, {0: "item"}),
        (("dog",), {"single_cls": False}, {0: "dog"}),
        (("dog",), {}, {0: "dog"}),
        (("dog", "cat"), {"single_cls": True}, {0: "dog", 1: "cat"}),
    ],
)
def test_what_was_trained_on_one_class_finds_items(
    names: tuple[str, ...], settings: dict[str, Any], found: dict[int, str], tmp_path: Path
) -> None:
    loaded = load(saved(tmp_path / "m.pt", network("detect", *names), train_args=settings))
    assert loaded.names == loaded.model.names == found
    assert load(network("detect", *names)).names == dict(enumerate(names))


def test_what_a_checkpoint_holds_beside_its_modules_is_kept(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.pt", network(), optimizer={"state": {}}, epoch=3, train_args={"imgsz": 96})
    loaded = load(path)
    assert loaded.checkpoint is not None
    assert not {"model", "ema", "optimizer"} & loaded.checkpoint.keys()
    assert loaded.checkpoint["epoch"] == 3
    assert loaded.imgsz == 96
    assert "pt_path" not in vars(loaded.model)  # which Ultralytics adds, and follows
    opened = YOLO(str(path))
    assert load(opened).checkpoint == loaded.checkpoint
    opened.ckpt_path, opened.model_name = "a.pt", "b"
    assert load(opened).source == "a.pt"
    opened.ckpt_path = None
    assert load(opened).source == "b"
    fresh = load(YOLO(str(written(tmp_path / "own.yaml", described()))))
    assert (fresh.checkpoint, fresh.source) == (None, str(tmp_path / "own.yaml"))


def test_a_loaded_network_is_as_if_it_never_ran(tmp_path: Path) -> None:
    """Anchors of an input are of its size, and the loss is of a training that is over; RT-DETR's stayed."""
    model = network()
    model(torch.rand(1, 3, 96, 96))
    model.criterion = nn.ReLU()
    path = saved(tmp_path / "m.pt", deepcopy(model))
    found = [load(model), load(path)]
    del model.criterion
    model.criterion = SimpleNamespace()
    for loaded in (*found, load(model)):
        head: Any = loaded.model.model[-1]  # type: ignore[index]
        assert head.anchors.numel() == head.strides.numel() == 0
        assert head.shape is None
        assert not hasattr(loaded.model, "criterion")


def test_a_network_without_its_norms_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()
    monkeypatch.setattr(type(model), "is_fused", lambda *_: False)  # Ultralytics 8.3 takes any small network for fused
    with pytest.raises(ModelError, match="its BatchNorm layers were fused away"):
        load(model.fuse(verbose=False))


def test_what_is_no_head_keeps_what_it_has() -> None:
    for missing in ("anchors", "strides", "shape"):
        module = nn.Sequential(nn.Identity())
        held = {name: 1 for name in ("anchors", "strides", "shape") if name != missing}
        vars(module[0]).update(held)
        networks.forget_inputs(module)
        assert {name: vars(module[0]).get(name, 1) for name in held} == held
        assert missing not in vars(module[0])


def test_the_student_of_a_distillation_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    class Taught(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.student_model, self.hooks = network(), ["one"]

        def _remove_feature_hooks(self) -> None:
            self.hooks.clear()

    monkeypatch.setattr(networks, "distilling", SimpleNamespace(DistillationModel=Taught))
    loaded = load(Taught())
    assert type(loaded.model) is NETWORKS["detect"]
    assert loaded.names == NAMES
    taught = Taught()
    assert networks.released(taught) is taught.student_model
    assert not taught.hooks
    assert networks.released(taught.student_model) is taught.student_model
    monkeypatch.setattr(networks, "distilling", None)  # an older Ultralytics
    assert networks.released(taught) is taught


def test_a_task_is_that_of_the_network_where_nobody_names_one(tmp_path: Path) -> None:
    for task in HEADS:
        model = network(task)
        del model.task
        assert load(model, tasks=tuple(HEADS)).task == task
    opened = YOLO(str(written(tmp_path / "m.yaml", described())))
    opened.model.task = "segment"
    assert load(opened).task == "detect"  # whoever holds it knows
    model = network()
    model.task = "segment"  # what it says of itself is not what it is
    with pytest.raises(ModelError, match="holds a DetectionModel, not an Ultralytics detector; give one for segment"):
        load(model, tasks=("segment",))


def test_an_exported_model_has_no_layers() -> None:
    opened = YOLO.__new__(YOLO)
    nn.Module.__init__(opened)
    opened.model, opened.ckpt, opened.ckpt_path, opened.model_name, opened.task = "m.onnx", {}, None, None, "detect"
    with pytest.raises(ModelError, match=r"m\.onnx: an exported model has no layers"):
        load(opened)


def test_a_network_that_cannot_run_is_refused_where_nobody_vouches_for_it(tmp_path: Path) -> None:
    model = network()
    model.model[1].conv.in_channels = model.model[1].conv.groups = 4  # what its weights are not for
    path = saved(tmp_path / "m.pt", model, train_args={})
    with pytest.raises(ModelError, match=r"m\.pt: holds a network that cannot be run \(.*it is damaged or of another"):
        load(path)
    assert load(path, trust=True).task == "detect"


def test_a_checkpoint_that_is_vouched_for_may_run_code(tmp_path: Path) -> None:
    model = network()
    model.other = SimpleNamespace(a=1)  # neither a layer nor data
    path = saved(tmp_path / "m.pt", model, train_args={})
    with pytest.raises(UntrustedError, match="SimpleNamespace"):
        load(path)
    assert load(path, trust=True).model.other == SimpleNamespace(a=1)


def test_weights_that_cannot_be_downloaded_are_said_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(path: str, *_: Any, **__: Any) -> None:
        raise FileNotFoundError("no network\nhere")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loading, "YOLO", offline)
    check_there("yolov8n.pt")
    with pytest.raises(ModelError, match=r"yolov8n\.pt: could not be downloaded \(no network here\); fetch it"):
        load("yolov8n.pt")


def test_what_ultralytics_cannot_open_is_said_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def other(*_: Any, **__: Any) -> None:
        raise AttributeError("no attribute 'new'")

    path = saved(tmp_path / "m.pt", network(), train_args={})
    monkeypatch.setattr(loading, "YOLO", other)
    with pytest.raises(ModelError, match=r"cannot be loaded \(no attribute 'new'\); was it saved by another version"):
        load(path)
    path = saved(tmp_path / "e.pt", None, ema=network(), train_args={})
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(path)


@pytest.mark.parametrize("text", ["- nc\n", "nc: 2\n", "nc: 2\nhead: []\n", "nc: [\n"])
def test_a_yaml_of_no_network_is_refused_with_its_path(text: str, tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(text)
    with pytest.raises(ModelError, match=r"m\.yaml: cannot be built \(.+\); give a model YAML"):
        load(tmp_path / "m.yaml")
    (tmp_path / "d.yaml").mkdir()
    with pytest.raises(ModelError, match=r"d\.yaml: cannot be built \(.*folder.*\)"):
        load(tmp_path / "d.yaml")


def test_a_yaml_is_looked_at_before_anything_is_made_of_it(tmp_path: Path) -> None:
    with pytest.raises(UntrustedError, match="head in the model's YAML: not a list of layers"):
        load(written(tmp_path / "m.yaml", described(head=3)))


def test_a_network_too_large_for_any_machine_is_not_built(tmp_path: Path) -> None:
    layers = [[-1, 1, "Conv", [64, 3]], [-1, 1, "Conv", [65536, 31]], [-1, 1, "Conv", [8, 3]]]
    with pytest.raises(ModelError, match="more than any that is known"):
        load(written(tmp_path / "m.yaml", described(backbone=layers)))


def test_of_every_family_of_detectors_the_smallest_is_named() -> None:
    found = smallest_detectors()
    assert {"yolov3-tiny", "yolov5n", "yolov5n-p6", "yolov8n", "yolov8n-rtdetr", "yolov9t", "yolov10n"} <= {*found}
    assert len(found) == len({*found})
    with_scales = {*found} - {"yolov3-tiny", "yolov9t", "yolov10n"}
    assert all("n" in yaml_model_load(f"{name}.yaml")["scales"] for name in with_scales)
    others = ("yolov3", "yolov8s", "yolov8", "yolov8n-seg", "yolov8n-cls", "yolov9c", "yolov10b", "rtdetr-l")
    assert not {*found} & {*others}
