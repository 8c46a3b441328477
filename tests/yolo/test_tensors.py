"""A network as tensors and a description: no code in either, the same network out."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from ultralytics.nn.tasks import DetectionModel

import seqprune
from seqprune.budget.price import Price
from seqprune.budget.spread import by_scores
from seqprune.errors import InputError, ModelError, UntrustedError
from seqprune.plan import PrunePlan
from seqprune.run import prune
from seqprune.yolo.files.load import load
from seqprune.yolo.files.networks import check_description, example
from seqprune.yolo.files.save import save_pt
from seqprune.yolo.files.tensors import save_pair
from seqprune.yolo.task.tracing import trace_detector

NAMES = {0: "green", 1: "red"}
DEMO = Path(__file__).parents[2] / "seqprune" / "demo" / "digits.pt"


@pytest.fixture
def pair(tiny: nn.Module, narrow_plan: PrunePlan, tmp_path: Path) -> Path:
    small = seqprune.compact(tiny, narrow_plan)
    return save_pair(small, tmp_path / "small.safetensors", names=NAMES, plan_json=narrow_plan.to_json())


def same(one: nn.Module, other: nn.Module) -> bool:
    with torch.no_grad():
        outputs = [model.eval()(example(one)) for model in (one, other)]
    states = [model.state_dict() for model in (one, other)]
    equal = all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
    return equal and torch.equal(outputs[0][0], outputs[1][0])


def test_it_comes_back_to_the_bit_with_its_plan(pair: Path, tiny: nn.Module, narrow_plan: PrunePlan) -> None:
    loaded = load(pair)
    assert same(loaded.model, seqprune.compact(tiny, narrow_plan))
    assert (loaded.plan, loaded.names, loaded.task, loaded.imgsz) == (narrow_plan, NAMES, "detect", 64)
    assert {entry.name for entry in pair.parent.iterdir()} >= {"small.safetensors", "small.json"}
    assert json.loads(pair.with_suffix(".json").read_text())["format"] == 1  # what older versions read too
    assert not [entry for entry in pair.parent.iterdir() if entry.name.startswith(".")]


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["yolo11n", "yolov10n"])
def test_other_architectures_come_back_pruned(architecture: str, tmp_path: Path) -> None:
    network = load(f"{architecture}.yaml").model
    graph = trace_detector(network)
    layer = next(layer for layer in graph.layers if layer.free.all() and layer.channels >= 16)
    plan = PrunePlan.from_keep(graph, {layer.name: range(0, layer.channels, 2)})
    small = seqprune.compact(network, plan, graph)
    path = save_pair(small, tmp_path / "m.safetensors", names=dict(enumerate(map(str, range(80)))))
    assert same(load(path).model, small)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_pruned_twice_through_files_and_made_anew_from_the_plans(
    suffix: str, tiny: nn.Module, data_yaml: Path, tmp_path: Path
) -> None:
    """The plan of each step, applied to what it was made for, gives what was saved to the bit."""
    source = save_pt(tiny, tmp_path / "m.pt", names=NAMES)
    given: dict[str, Any] = {"imgsz": 64, "match": "all", "keep": 0.5, "val": False}
    for number in range(2):
        result = prune(source, data_yaml, layers=["model.5.conv"], **given)
        target = result.save(tmp_path / f"{number}{suffix}")
        result.plan.save(tmp_path / "plan.json")
        plan, before, after = PrunePlan.load(tmp_path / "plan.json"), load(source).model, load(target).model
        assert same(seqprune.compact(before, plan), after)
        assert same(seqprune.compact(seqprune.mask(before, plan), plan), after)
        source = target
    wide, narrow = (model.get_submodule("model.5.conv").out_channels for model in (tiny, load(source).model))
    assert narrow == wide // 4


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_masked_pruned_again_and_again_through_files(
    suffix: str, tiny: nn.Module, data_yaml: Path, tmp_path: Path
) -> None:
    """Channels that an earlier run masked are gone before the next one looks; its plan is for what is left then."""
    source = save_pt(tiny, tmp_path / "m.pt", names=NAMES)
    given: dict[str, Any] = {"imgsz": 64, "match": "all", "keep": 0.5, "round_to": 1, "val": False}
    widths = []
    for number in range(3):
        result = prune(source, data_yaml, layers=["model.5.conv"], mode="mask", **given)
        target = result.save(tmp_path / f"{number}{suffix}")
        before, after = load(source), load(target)
        whole = before.model if before.plan is None else seqprune.compact(before.model, before.plan)
        assert after.plan == result.plan
        assert same(seqprune.mask(whole, result.plan), after.model)
        widths.append((result.steps[0].active_before, result.steps[0].active_after))
        source = target
    assert widths[0][1] == widths[1][0]
    assert widths[1][1] == widths[2][0] < widths[0][0] / 2


def test_the_demo_weights_come_back(tmp_path: Path) -> None:
    loaded = load(DEMO)
    path = save_pair(loaded.model, tmp_path / "digits.safetensors", names=loaded.names)
    assert same(load(path).model, loaded.model)


@pytest.mark.real
def test_the_official_weights_come_back(real: Path, tmp_path: Path) -> None:
    loaded = load(real / "weights" / "yolov8n.pt")
    assert same(load(save_pair(loaded.model, tmp_path / "m.safetensors", names=loaded.names)).model, loaded.model)


def test_a_network_its_yaml_does_not_describe_is_not_saved(tiny: nn.Module, tmp_path: Path) -> None:
    tiny.get_submodule("model.0").act = nn.ReLU()
    with pytest.raises(ModelError, match="its YAML does not describe this network"):
        save_pair(tiny, tmp_path / "m.safetensors", names=NAMES)
    with pytest.raises(InputError, match="end in"):
        save_pair(tiny, tmp_path / "m.tensors", names=NAMES)
    assert not list(tmp_path.iterdir())


def described(pair: Path, **changes: Any) -> Path:
    beside = pair.with_suffix(".json")
    beside.write_text(json.dumps(json.loads(beside.read_text()) | changes))
    return pair


def test_a_description_cannot_run_code(pair: Path, tiny: nn.Module, tmp_path: Path) -> None:
    sentinel = tmp_path / "it-ran"
    code = f"[__import__('os').mkdir({str(sentinel)!r}), torch.nn.SiLU()][1]"
    with pytest.raises(UntrustedError, match="is code, not a layer"):
        load(described(pair, yaml={**tiny.yaml, "activation": code}))
    with pytest.raises(UntrustedError, match="'check_requirements'"):
        check_description({"backbone": [[-1, 1, "check_requirements", ["a-package"]]], "head": []})
    (tmp_path / "m.yaml").write_text(f"nc: 2\nactivation: {json.dumps(code)}\nbackbone: []\nhead: []\n")
    with pytest.raises(UntrustedError, match="is code, not a layer"):
        load(tmp_path / "m.yaml")
    assert not sentinel.exists()


@pytest.mark.parametrize("name", ["nn.functional.relu", "nn.modules.Linear", "torch.load", "os", "YAML", "nn."])
def test_what_is_no_layer_is_refused(name: str) -> None:
    with pytest.raises(UntrustedError, match="no layer"):
        check_description({"backbone": [], "head": [[-1, 1, name, []]]})


@pytest.mark.parametrize("name", ["Conv", "nn.Upsample", "torchvision.ops.DeformConv2d", "Detect"])
@pytest.mark.parametrize("activation", [None, "nn.ReLU()", "torch.nn.LeakyReLU(0.1)", "nn.Hardtanh(min_val=-1)"])
def test_what_is_a_layer_is_not(name: str, activation: str | None) -> None:
    check_description({"activation": activation, "backbone": [[-1, 1, name, []]], "head": []})


def test_files_that_are_missing_damaged_or_strangers_are_refused(pair: Path, tiny: nn.Module, tmp_path: Path) -> None:
    beside, text = pair.with_suffix(".json"), pair.with_suffix(".json").read_text()
    names, plan = json.loads(text)["names"], json.loads(text)["plan"]
    for change, said in (
        ({"format": 9}, "no network that this version knows"),
        ({"names": {"0": "one"}}, "does not fit"),
        ({"task": "segment"}, "is a model for segment"),
        ({"names": [names]}, "does not fit"),
        ({"plan": {**plan, "layers": 3}}, "does not fit"),
        ({"yaml": {**tiny.yaml, "scales": {"n": [0.33, 0.0625, 256]}}}, "does not fit"),
    ):
        beside.write_text(text)
        with pytest.raises(ModelError, match=said) as caught:
            load(described(pair, **change))
        assert "\n" not in str(caught.value)
    beside.write_text(text[:100])
    with pytest.raises(ModelError, match="damaged"):
        load(pair)
    beside.write_text(text)
    whole = pair.read_bytes()
    for broken in (whole[:200], b"", struct.pack("<Q", 1 << 60) + whole[8:]):
        pair.write_bytes(broken)
        with pytest.raises(ModelError, match="damaged"):
            load(pair)
    pair.write_bytes(whole)
    beside.unlink()
    with pytest.raises(ModelError, match=r"small\.json: no such file"):
        load(pair)


@pytest.mark.parametrize(
    ("said", "held"), [(96, {"imgsz": 96}), (None, {"imgsz": 640}), ("../x", {}), (10**9, {}), ({"a": "b"}, {})]
)
def test_a_size_is_taken_from_a_description_where_it_is_a_number(said: Any, held: dict[str, int], pair: Path) -> None:
    """A line left over from a merge took whatever stood there into the network's arguments."""
    loaded = load(described(pair, imgsz=said, names={"1": "y" * 301, "0": "x" * 300}))
    assert loaded.model.args == {"task": "detect", **held}
    assert loaded.names == {0: "x" * 300, 1: "y" * 299 + "…"}


def test_a_width_is_a_number_of_channels_in_place_of_one(pair: Path) -> None:
    for module, name, number in (
        *(("model.0", "conv", 3), ("model.0.conv", "weight", 3), ("model.0.conv", "bias", 3)),
        *(("model.0.conv", "out_channels", number) for number in (True, -1, (1 << 20) + 1, 1.5, [1, "2"], None)),
    ):
        with pytest.raises(ModelError, match=f"{module}.{name} holds no width"):
            load(described(pair, widths=[[module, name, number]]))
    for number in (0, 1 << 20, [1, 2]):
        found = load(described(pair, widths=[["model.0.conv", "out_channels", number]]))
        assert found.model.get_submodule("model.0.conv").out_channels == number


def test_attention_comes_back_with_its_pruned_values(tmp_path: Path) -> None:
    """Its code computes with widths that no tensor's shape tells."""
    network = load("yolo11n.yaml").model
    graph = trace_detector(network)
    plan = PrunePlan.from_removed(
        graph, by_scores(graph, Price(network, graph), np.arange(graph.group_count) % 7.0, 0.5)
    )
    assert any(width.module.startswith("model.10") for width in graph.widths)
    small = seqprune.compact(network, plan, graph)
    path = save_pair(small, tmp_path / "m.safetensors", names=dict(enumerate(map(str, range(80)))))
    assert same(load(path).model, small)
    beside = path.with_suffix(".json")
    described = json.loads(beside.read_text())
    described["widths"][0][1] = "forward"
    beside.write_text(json.dumps(described))
    with pytest.raises(ModelError, match="forward holds no width"):
        load(path)


def test_numbers_that_followed_a_layer_beside_them_come_back(tmp_path: Path) -> None:
    """``c1`` and ``c2`` of a RepConv, which nothing but a deploy step reads, came back as they were before pruning."""
    layers = [[-1, 1, "Conv", [16, 3, 2]], [-1, 1, "RepC3", [24]], [-1, 1, "Conv", [16, 3, 2]]]
    head = [[[2], 1, "Detect", ["nc"]]]
    network: Any = DetectionModel({"nc": 2, "channels": 3, "backbone": layers, "head": head}, nc=2, verbose=False)
    network.task, network.names = "detect", NAMES
    graph = trace_detector(network)
    keep = {"model.1.cv1.conv": range(8), "model.1.m.0.conv1.conv": range(8)}
    small: Any = seqprune.compact(network, PrunePlan.from_keep(graph, keep), graph)
    assert (small.model[1].m[0].c1, small.model[1].m[0].c2) == (8, 8)
    path = save_pair(small, tmp_path / "m.safetensors", names=NAMES)
    back: Any = load(path).model
    assert (back.model[1].m[0].c1, back.model[1].m[0].c2) == (8, 8)
    assert same(back, small)
    assert ["model.1.m.0", "c1", 8] in json.loads(path.with_suffix(".json").read_text())["widths"]
