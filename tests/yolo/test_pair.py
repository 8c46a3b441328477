"""A pair of files of a network of four layers: what is written of it, what comes back, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import ultralytics
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from small import CONV, HEADS, QUERIES, described, network
from torch import nn
from ultralytics.nn.tasks import RTDETRDetectionModel

import seqprune
from seqprune.errors import InputError, ModelError, UntrustedError
from seqprune.graph.factor import Factor, factored
from seqprune.graph.leaving import left_out, merge
from seqprune.plan import PrunePlan
from seqprune.yolo.files.heads import knows_some, only_classes, with_classes
from seqprune.yolo.files.load import load
from seqprune.yolo.files.pruned import plan_of, remember, trainer_of
from seqprune.yolo.files.tensors import load_pair, save_pair
from seqprune.yolo.task.tracing import trace_detector

NAMES = {0: "green", 1: "red"}
C2F = [-1, 2, "C2f", [8, True]]


def description_of(path: Path) -> dict[str, Any]:
    return json.loads(path.with_suffix(".json").read_text())  # type: ignore[no-any-return]


def changed(path: Path, **changes: Any) -> Path:
    path.with_suffix(".json").write_text(json.dumps(description_of(path) | changes))
    return path


def without(path: Path, key: str) -> Path:
    held = {name: value for name, value in description_of(path).items() if name != key}
    path.with_suffix(".json").write_text(json.dumps(held))
    return path


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    return save_pair(network(), tmp_path / "m.safetensors", names=NAMES)


def same(one: nn.Module, other: nn.Module) -> bool:
    mine, others = (model.state_dict() for model in (one, other))
    return mine.keys() == others.keys() and all(torch.equal(mine[name], others[name]) for name in mine)


@pytest.mark.parametrize("task", HEADS)
def test_a_network_of_every_task_comes_back(task: str, tmp_path: Path) -> None:
    model = network(task)
    path = save_pair(model, tmp_path / "m.safetensors", names=NAMES)
    found: Any = load_pair(path)
    assert same(found, model)
    assert (found.names, found.nc, found.task, found.args) == (NAMES, 2, task, {"task": task, "imgsz": 64})
    assert not knows_some(found)
    assert plan_of(found) is None
    held = description_of(path)
    assert (held["format"], held["task"], held["imgsz"], held["plan"]) == (1, task, 64, None)
    assert (held["blocks"], held["factors"], held["some_classes"]) == ([], [], False)
    assert held["versions"] == {"ultralytics": ultralytics.__version__, "torch": torch.__version__}
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_what_is_saved_is_float32_as_it_was_before_it_ran_and_without_its_plan(tmp_path: Path) -> None:
    model = network()
    plan = PrunePlan.from_keep(trace_detector(model), {"model.1.conv": range(4)})
    remember(model, plan.to_json())
    model(torch.rand(1, 3, 96, 96))
    model.criterion = nn.Linear(1, 1)  # a loss that was in use
    model.half().train()
    path = save_pair(model, tmp_path / "m.safetensors", names=NAMES)
    assert {tensor.dtype for tensor in load_file(path).values()} == {torch.float32, torch.int64}
    assert description_of(path)["yaml"]["backbone"] == [CONV] * 3
    found: Any = load_pair(path)
    assert plan_of(found) is None
    assert same(found, network().half().float())
    assert model.training  # the network that was given stays as it was
    assert plan_of(model) == plan
    assert next(model.parameters()).dtype is torch.float16


@pytest.mark.parametrize(
    ("arguments", "size"),
    [({"imgsz": 96}, 96), (SimpleNamespace(imgsz=96), 96), ({}, None), (SimpleNamespace(), None), (None, None)],
)
def test_a_size_is_that_of_the_arguments(arguments: Any, size: int | None, tmp_path: Path) -> None:
    model = network()
    del model.task, model.args
    if arguments is not None:
        model.args = arguments
    path = save_pair(model, tmp_path / "m.safetensors", names=NAMES)
    assert (description_of(path)["imgsz"], description_of(path)["task"]) == (size, "detect")
    found: Any = load_pair(path)
    assert found.args == {"task": "detect", "imgsz": size or 640}


def test_a_plan_comes_back_with_a_bar_against_rebuilding(tmp_path: Path) -> None:
    model = network()
    graph = trace_detector(model)
    plan = PrunePlan.from_keep(graph, {"model.1.conv": range(4)})
    small = seqprune.compact(model, plan, graph)
    path = save_pair(small, tmp_path / "m.safetensors", names=NAMES, plan_json=plan.to_json())
    loaded, found = load(path), load_pair(path)
    assert same(loaded.model, small)
    assert loaded.plan == plan_of(found) == plan
    layers: Any = found.yaml["backbone"]  # type: ignore[index]
    assert trainer_of(found) in layers[0][2]
    assert layers[1:] == [CONV] * 3


def test_classes_that_left_or_came_come_back(tmp_path: Path) -> None:
    model = network("detect", "a", "b", "c")
    cut: Any = only_classes(model, ["c", "a"])
    path = save_pair(cut, tmp_path / "m.safetensors", names=cut.names)
    found: Any = load_pair(path)
    assert same(found, cut)
    assert knows_some(found)
    assert (found.names, found.nc, found.model[-1].nc) == (cut.names, 2, 2)
    assert description_of(path)["yaml"]["nc"] == 3
    more: Any = with_classes(model, ["a", "b", "c" * 300, "d" * 301])
    found = load_pair(save_pair(more, tmp_path / "m.safetensors", names=more.names))
    assert same(found, more)
    assert found.names == {0: "a", 1: "b", 2: "c" * 300, 3: "d" * 299 + "…"}
    assert not knows_some(found)


@pytest.mark.parametrize(
    ("blocks", "factors", "version"),
    [((1,), (), 3), ((0,), (Factor("model.1", "row", 3),), 3), ((), (Factor("model.1", "column", 5),), 2)],
)
def test_blocks_that_left_and_pairs_of_factors_come_back(
    blocks: tuple[int, ...], factors: tuple[Factor, ...], version: int, tmp_path: Path
) -> None:
    paths = [f"model.2.m.{number}" for number in blocks]
    model = left_out(factored(network(backbone=[CONV, CONV, C2F]), factors), paths)
    merge(model, paths)
    path = save_pair(model, tmp_path / "m.safetensors", names=NAMES)
    assert description_of(path)["format"] == version
    assert description_of(path)["blocks"] == ["model.2.m.1"] * len(blocks)  # elements of a list are alike
    assert description_of(path)["factors"] == [[each.block, each.first, each.rank] for each in factors]
    assert same(load_pair(path), model)


def test_an_older_description_without_newer_keys_is_read(pair: Path) -> None:
    for key in ("blocks", "factors", "widths", "some_classes", "plan", "versions"):
        without(pair, key)
    assert same(load_pair(pair), network())
    for key in ("names", "task", "yaml", "imgsz"):
        kept = pair.with_suffix(".json").read_text()
        with pytest.raises(ModelError, match=r"m\.safetensors: does not fit m\.json \(.+\); copy both again"):
            load_pair(without(pair, key))
        pair.with_suffix(".json").write_text(kept)


def test_numbers_of_modules_are_written_where_they_are_not_what_is_built(tmp_path: Path) -> None:
    model = network()
    model.model[1].conv.in_channels = 9  # which nothing reads
    model.model[1].conv.other = 5  # which no network that is built has
    model.model[2].conv.out_channels = True  # where a number was
    model.nc = 5  # its names say how many
    path = save_pair(model, tmp_path / "m.safetensors", names=NAMES)
    written = description_of(path)["widths"]
    assert ["model.1.conv", "in_channels", 9] in written
    assert not [each for each in written if each[0] == "" or each[1:] in (["other", 5], ["out_channels", True])]
    assert load_pair(path).get_submodule("model.1.conv").in_channels == 9


def smooth(model: Any) -> None:
    model.model[1].bn.eps *= 1.001  # within the tolerance of a proof, and not the same


def activated(model: Any) -> None:
    model.model[1].act = nn.ReLU()


def grown(model: Any) -> None:
    model.model[1].more = nn.Linear(1, 1)


def stretched(model: Any) -> None:
    conv = model.model[1].conv = nn.Conv2d(8, 8, (5, 3), 2, (2, 1), bias=False)
    conv.requires_grad_(False)


def forgetful(model: Any) -> None:
    model.yaml["head"] = [[[2], 1, "Detect", [1]]]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (smooth, "the compact model differs"),
        (activated, "the compact model differs"),
        (grown, r"model\.1\.more\.bias is in only one of"),
        (stretched, r"model\.1\.conv\.weight is \[8, 8, 5, 3\] where the whole is \[8, 8, 3, 3\]"),
        (forgetful, "size mismatch|where the whole is"),
    ],
)
def test_a_network_that_its_yaml_nearly_describes_is_not_saved(change: Any, said: str, tmp_path: Path) -> None:
    """A kernel of another size ended in an error of Python's, a layer more in the advice to copy the files again."""
    model = network()
    change(model)
    with pytest.raises(
        ModelError, match=rf"^its YAML does not describe this network \(.*({said}).*; save it as a \.pt"
    ):
        save_pair(model, tmp_path / "m.safetensors", names=NAMES)
    assert not list(tmp_path.iterdir())


def test_a_network_of_another_kind_than_its_task_says_is_not_saved(tmp_path: Path) -> None:
    model = network()
    model.task = "segment"
    with pytest.raises(ModelError, match=r"a DetectionModel cannot be rebuilt from its YAML; save it as a \.pt"):
        save_pair(model, tmp_path / "m.safetensors", names=NAMES)
    queries = RTDETRDetectionModel(described(head=[QUERIES]), nc=2, verbose=False)
    queries.task = "detect"
    with pytest.raises(ModelError, match="a RTDETRDetectionModel cannot be rebuilt"):
        save_pair(queries, tmp_path / "m.safetensors", names=NAMES)


@pytest.mark.parametrize("width", [0, 1 << 20, [3, 5]])
def test_a_width_is_a_number_of_channels_or_several(width: Any, pair: Path) -> None:
    found: Any = load_pair(changed(pair, widths=[["model.1.conv", "in_channels", width]]))
    assert found.model[1].conv.in_channels == width
    for strange in (-1, (1 << 20) + 1, True, 1.0, "1", [1, -1]):
        with pytest.raises(ModelError, match=r"model\.1\.conv\.in_channels holds no width"):
            load_pair(changed(pair, widths=[["model.1.conv", "in_channels", strange]]))


def test_a_network_whose_channels_come_last_in_memory_comes_back(tmp_path: Path) -> None:
    model = network().to(memory_format=torch.channels_last)
    path = save_pair(model, tmp_path / "m.safetensors", names=NAMES)
    assert same(load_pair(path), network())


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"m\.safetensors: cannot be written \(.+\); check the folder"):
        save_pair(network(), tmp_path / "absent" / "m.safetensors", names=NAMES)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"yaml": described(backbone=[CONV, CONV, [-1, 1, "Conv", [8, 1, 2]]])}, "does not fit"),
        ({"yaml": []}, "does not fit"),
        ({"names": {"one": "green", "2": "red"}}, "does not fit"),
        ({"blocks": ["model.0"]}, "does not fit"),
        ({"factors": [["model.9", "row", 1]]}, "does not fit"),
        ({"widths": [["model.1.conv", "absent", 1]]}, "does not fit"),
        ({"widths": [["model.99", "i", 1]]}, "does not fit"),
        ({"widths": [["model.0", "conv", 1]]}, "holds no width"),
        ({"widths": [["model.0", "i", "1"]]}, "holds no width"),
        ({"widths": [["model.0.conv", "groups", 0]]}, "does not fit"),
        ({"plan": {}}, "does not fit"),
        ({"yaml": described(activation="exec()")}, "is code"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(change: dict[str, Any], said: str, pair: Path) -> None:
    with pytest.raises(UntrustedError if said == "is code" else ModelError, match=said):
        load_pair(changed(pair, **change))


def test_tensors_that_do_not_fit_are_refused(pair: Path) -> None:
    save_file({name: tensor for name, tensor in load_file(pair).items() if ".bn." not in name}, pair)
    with pytest.raises(
        ModelError, match=r"does not fit m\.json \(model\.0\.bn\.bias is in only one of the tensors and the"
    ):
        load_pair(pair)
    pair.unlink()
    pair.mkdir()
    with pytest.raises(ModelError, match=r"m\.safetensors: .*folder.*; m\.safetensors and m\.json belong together"):
        load_pair(pair)


def test_names_are_read_for_a_terminal(pair: Path) -> None:
    found: Any = load_pair(changed(pair, names={"1": "x" * 300, "0": "y" * 301}))
    assert found.names == {1: "x" * 300, 0: "y" * 299 + "…"}


def test_what_a_pair_describes_is_counted_when_it_first_runs(tmp_path: Path) -> None:
    """A number in either of them may make a network that no machine can run."""
    model = network(backbone=[CONV, CONV, [-1, 1, "nn.Upsample", [8]]])
    path = save_pair(model, tmp_path / "m.safetensors", names=NAMES)
    assert load_pair(changed(path, widths=[["model.2", "size", 16]])).get_submodule("model.2").size == 16
    with pytest.raises(ModelError, match="more than any that is known"):
        load_pair(changed(path, widths=[["model.2", "size", 1 << 20]]))
