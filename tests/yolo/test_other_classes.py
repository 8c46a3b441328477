"""Other classes for a pruned network: the head's last layers change, nothing else does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import nn
from ultralytics import YOLO
from ultralytics.nn.tasks import RTDETRDetectionModel, yaml_model_load

import seqprune
from seqprune.errors import DataError, ModelError
from seqprune.yolo import finetune
from seqprune.yolo.files.heads import class_layers, knows_some, only_classes, with_classes
from seqprune.yolo.files.load import load
from seqprune.yolo.files.networks import NETWORKS
from seqprune.yolo.train.job import train

SUFFIX = {"detect": "", "segment": "-seg", "pose": "-pose", "obb": "-obb", "classify": "-cls"}
YAMLS = {f"yolov8n{suffix}.yaml": task for task, suffix in SUFFIX.items()} | {
    "yolo26n.yaml": "detect", "yolo26n-seg.yaml": "segment", "yolov10n.yaml": "detect", "yolo11n-cls.yaml": "classify",
}  # fmt: skip


def network(source: str, task: str, names: Sequence[str]) -> nn.Module:
    torch.manual_seed(0)
    try:
        cfg = yaml_model_load(source)
    except FileNotFoundError:
        pytest.skip(f"this release of Ultralytics has no {source}")
    cfg |= {"nc": len(names)}
    if "rtdetr" in source:
        cfg["head"][-1][3] = ["nc", 256, 40]  # queries, of which older releases want no more than there are cells
    kind = RTDETRDetectionModel if "rtdetr" in source else NETWORKS[task]
    model = kind(cfg, verbose=False).eval()  # type: ignore[call-arg]
    model.names, model.task, model.args = dict(enumerate(names)), task, {"imgsz": 64, "task": task}  # type: ignore[assignment]
    return model


def unchanged(before: nn.Module, after: nn.Module) -> bool:
    """Everything but the rows of classes."""
    mine, theirs = before.state_dict(), after.state_dict()
    rows = {f"{name}.{part}" for name in class_layers(before) for part in ("weight", "bias")}
    assert rows
    return (
        all(torch.equal(mine[name], theirs[name]) for name in mine if name not in rows) and mine.keys() == theirs.keys()
    )


@pytest.mark.parametrize(("source", "task"), [*YAMLS.items(), ("yolov8-rtdetr.yaml", "detect")])
def test_the_rows_of_classes_are_kept_by_name_or_made_anew(source: str, task: str) -> None:
    model = network(source, task, "abcde")
    torch.manual_seed(1)
    other = with_classes(model, ["x", "d", "b"])
    assert unchanged(model, other)
    assert other.names == {0: "x", 1: "d", 2: "b"}
    for name, layer in class_layers(model).items():
        changed = other.get_submodule(name)
        assert changed.weight.shape[0] == 3
        assert torch.equal(changed.weight[1:], layer.weight[[3, 1]])
        assert not torch.equal(changed.weight[0], layer.weight[0])
    fresh = network(source, task, "xdb")
    same = {name: tensor.shape for name, tensor in other.state_dict().items() if name.split(".")[-1] != "running_mean"}
    heads = {f"{name}.weight" for name in class_layers(model)}
    assert {fresh.state_dict()[name].shape[0] for name in heads} == {3}
    assert {same[name][0] for name in heads} == {3}
    with torch.no_grad():
        other(torch.rand(1, 3, 64, 64))
        other.train()(torch.rand(2, 3, 64, 64))


def test_what_is_kept_is_predicted_as_before() -> None:
    model, image = network("yolov8n.yaml", "detect", "abcde"), torch.rand(1, 3, 64, 64)
    cut = only_classes(model, ["d", "1"])
    assert cut.names == {0: "b", 1: "d"}
    with torch.no_grad():
        whole, part = model(image)[0], cut(image)[0]
    assert torch.equal(part, whole[:, [0, 1, 2, 3, 5, 7]])
    assert knows_some(cut)
    assert not knows_some(only_classes(model, range(5)))


def test_new_rows_begin_as_ultralytics_begins() -> None:
    made, fresh = with_classes(network("yolov8n.yaml", "detect", "ab"), "xyz"), network("yolov8n.yaml", "detect", "xyz")
    for level in range(3):
        wanted = fresh.model[-1].cv3[level][-1].bias.data  # of 2 classes, then 3: 5 objects in an image either way
        assert made.model[-1].cv3[level][-1].bias.data == pytest.approx(wanted, abs=1e-5)


def test_names_that_are_no_classes_are_refused() -> None:
    model = network("yolov8n.yaml", "detect", "ab")
    with pytest.raises(DataError, match="'z' is no class of the model: give names or numbers of its 2: a, b"):
        only_classes(model, ["z"])
    with pytest.raises(DataError, match="no classes were named"):
        only_classes(model, [])
    with pytest.raises(ModelError, match="classes of this network are texts"):
        with_classes(YOLO("yolov8s-worldv2.yaml").model, ["a"])


@pytest.fixture
def pruned(tiny: nn.Module) -> seqprune.PruneResult:
    return seqprune.prune(tiny, preset="fast", target="params=0.7", imgsz=64, round_to=1)


def six(data_yaml: Path) -> Path:
    """The same images, labelled with six classes of other names."""
    for number, file in enumerate(sorted((data_yaml.parent / "labels").rglob("*.txt"))):
        file.write_text(f"{number % 6} 0.5 0.5 0.4 0.4\n")
    data_yaml.write_text("train: images/train\nval: images/val\nnames: [a, b, c, d, e, f]\n")
    return data_yaml


def test_a_pruned_network_is_trained_for_other_classes(
    pruned: seqprune.PruneResult, data_yaml: Path, tmp_path: Path
) -> None:
    """ "they were not made for each other": any other YOLO is trained on."""
    said: list[str] = []
    path = pruned.save(tmp_path / "small.pt")
    quick = {"imgsz": 64, "device": "cpu", "lr0": 0.0, "optimizer": "SGD", "warmup_epochs": 0, "weight_decay": 0.0}
    done = train(path, six(data_yaml), tmp_path / "run", epochs=1, arguments=quick, warn=said.append)
    found = load(done.best)
    assert found.names == dict(enumerate("abcdef"))
    assert found.plan == pruned.plan
    before, after = load(path).model.state_dict(), found.model.state_dict()
    rows = {f"{name}.{part}" for name in class_layers(found.model) for part in ("weight", "bias")}
    assert all(before[name].shape == tensor.shape for name, tensor in after.items() if name not in rows)
    assert {after[name].shape[0] for name in rows} == {6}
    assert len(said) == 1
    assert "made anew" in said[0]
    again = seqprune.prune(done.best, data_yaml, preset="accurate", target="params=0.8", imgsz=64, round_to=1)
    assert again.record.after.map50_95 is not None


def test_a_network_in_memory_is_trained_for_other_classes(pruned: seqprune.PruneResult, data_yaml: Path) -> None:
    tuned = finetune(pruned.model, six(data_yaml), epochs=1, imgsz=64, plan=pruned.plan)
    assert tuned.names == dict(enumerate("abcdef"))
    assert all(tuned.get_submodule(name).weight.shape[0] == 6 for name in class_layers(tuned))


def test_a_pair_of_other_classes_comes_back(pruned: seqprune.PruneResult, tmp_path: Path) -> None:
    """The widths before the last layers follow the number of classes that a YAML is built with: 80 are not 6."""
    model = with_classes(network("yolov8n.yaml", "detect", [f"c{n}" for n in range(80)]), ["c7", "new"])
    from seqprune.yolo.files.tensors import save_pair

    back = load(save_pair(model, tmp_path / "m.safetensors", names=model.names)).model
    assert back.names == {0: "c7", 1: "new"}
    assert all(torch.equal(tensor, back.state_dict()[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_some_classes_are_kept_from_pruning_to_training(
    tiny: nn.Module, data_yaml: Path, tmp_path: Path, suffix: str
) -> None:
    result = seqprune.prune(
        tiny, data_yaml, preset="accurate", target="params=0.8", imgsz=64, classes=["red"], finetune=1
    )
    assert result.names == {0: "red"}
    path = result.save(tmp_path / f"red{suffix}")
    assert knows_some(load(path).model)
    done = train(path, data_yaml, tmp_path / "run", epochs=1, arguments={"imgsz": 64, "device": "cpu"})
    assert load(done.best).names == {0: "red"}


def test_training_cuts_down_to_some_classes(tiny: nn.Module, data_yaml: Path, tmp_path: Path) -> None:
    from seqprune.yolo.files.save import save_pt

    path = save_pt(tiny, tmp_path / "m.pt", names={0: "green", 1: "red"})
    said: list[str] = []
    done = train(
        path, data_yaml, tmp_path / "run", epochs=1, arguments={"imgsz": 64, "device": "cpu"}, classes=["red"],
        warn=said.append,
    )  # fmt: skip
    assert load(done.best).names == {0: "red"}
    assert [line for line in said if "was not pruned" in line] == said
