"""A network of Ultralytics' without some bottlenecks is plain Ultralytics: files, fusing, export, training."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from ultralytics import YOLO
from ultralytics.nn.modules import C3, A2C2f, C2f, C3k2

from seqprune.graph.factor import Factor, factored
from seqprune.graph.leaving import left_out, placed, removable
from seqprune.plan import PrunePlan
from seqprune.surgery import compact, mask, verify
from seqprune.testing.networks import random_plan, randomise
from seqprune.yolo.files.load import load
from seqprune.yolo.files.pruned import is_masked
from seqprune.yolo.files.save import save_pt
from seqprune.yolo.files.tensors import save_pair
from seqprune.yolo.task.tracing import trace_detector
from seqprune.yolo.train.facade import rebuild
from seqprune.yolo.train.tuning import finetune

NAMES = {0: "green", 1: "red"}
BLOCKS = ("model.4.m.0", "model.6.m.1", "model.12.m.0")
FACTORS = (Factor("model.4.m.1.cv1", "row", 3), Factor("model.22.cv2.0.0", "column", 9))
IMAGE = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def network(tiny: nn.Module) -> nn.Module:
    """With weights under which a wrong channel shows."""
    randomise(tiny, 0)
    return tiny


def planned(model: nn.Module, blocks: Sequence[str] = BLOCKS, seed: int = 0) -> PrunePlan:
    graph = trace_detector(factored(left_out(model, blocks), FACTORS))
    return replace(random_plan(graph, seed, 0.3), factors=FACTORS, imgsz=96, blocks=tuple(blocks))


def lists(model: nn.Module) -> dict[str, int]:
    return {name: len(module.m) for name, module in model.named_modules() if isinstance(module, C2f)}  # type: ignore[arg-type]


def test_lists_are_shorter_and_their_reader_reads_less(network: nn.Module) -> None:
    small = compact(network, replace(PrunePlan((), trace_detector(network).inputs), blocks=BLOCKS))
    changed = {name: (count, lists(small)[name]) for name, count in lists(network).items()}
    assert {name for name, (was, now) in changed.items() if was != now} == {"model.4", "model.6", "model.12"}
    assert (changed["model.4"], changed["model.12"]) == ((2, 1), (1, 0))
    before, after = (m.get_submodule("model.4.cv2.conv").in_channels for m in (network, small))
    assert after == before * 3 // 4
    assert placed(small, BLOCKS, "model.4.m.1.cv1.conv") == "model.4.m.0.cv1.conv"
    assert placed(left_out(network, BLOCKS), BLOCKS, "model.4.m.1.cv1.conv") == "model.4.m.1.cv1.conv"


@pytest.mark.parametrize(
    "blocks", [("model.2.m.0", "model.4.m.0"), ("model.6.m.1", "model.4.m.1", "model.4.m.0"), ("model.6.m.0",)]
)
def test_bottlenecks_that_add_nothing_leave_exactly(network: nn.Module, blocks: tuple[str, ...]) -> None:
    """The assembled reference is the network itself, the branches of these blocks at zero."""
    model = network
    for path in blocks:
        norm = model.get_submodule(f"{path}.cv2.bn")
        nn.init.zeros_(norm.weight)  # type: ignore[arg-type]
        nn.init.zeros_(norm.bias)  # type: ignore[arg-type]
    small = compact(model, replace(PrunePlan((), trace_detector(model).inputs), blocks=blocks))
    assert verify(model, small, IMAGE)


def test_what_adds_nothing_to_what_it_reads_is_forgotten(network: nn.Module) -> None:
    """In the neck there is no shortcut: what reads such a block does as if that were zero."""
    small = compact(network, replace(PrunePlan((), trace_detector(network).inputs), blocks=("model.12.m.0",)))
    with torch.no_grad():
        network.get_submodule("model.12.m.0.cv2.bn").weight.zero_()  # type: ignore[operator,union-attr]
        network.get_submodule("model.12.m.0.cv2.bn").bias.zero_()  # type: ignore[operator,union-attr]
    assert verify(network, small, IMAGE)


@pytest.mark.parametrize("seed", range(2))
def test_compact_is_the_masked_network(network: nn.Module, seed: int) -> None:
    plan = planned(network, BLOCKS[:: -1 if seed else 1], seed)
    masked, small = mask(network, plan), compact(network, plan)
    assert verify(masked, small, IMAGE)
    assert PrunePlan.from_json(plan.to_json()) == plan
    assert is_masked(masked, plan)
    assert not is_masked(small, plan)
    again = compact(masked, plan)
    assert {n: t.shape for n, t in again.state_dict().items()} == {n: t.shape for n, t in small.state_dict().items()}


@pytest.mark.parametrize("kind", [C3, C3k2, A2C2f])
def test_other_blocks_of_the_family(kind: type[nn.Module]) -> None:
    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = kind(16, 16, 3) if kind is not A2C2f else kind(64, 64, 3, True, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.block(x)  # type: ignore[no-any-return]

    model = Holder().eval()
    randomise(model, 0)
    image = torch.randn(1, 64 if kind is A2C2f else 16, 8, 8)
    blocks = tuple(path for path in removable(model, (image,)) if path.count(".") == 2)[::2]
    assert blocks == ("block.m.0", "block.m.2")
    plan = replace(PrunePlan((), ((tuple(image.shape), "float32"),)), blocks=blocks)
    assert verify(mask(model, plan), compact(model, plan), image)


def test_both_kinds_of_file_bring_it_back_to_the_bit(network: nn.Module, tmp_path: Path) -> None:
    plan = planned(network)
    small = compact(network, plan)
    save_pt(small, tmp_path / "m.pt", names=NAMES, plan_json=plan.to_json(), half=False)
    save_pair(small, tmp_path / "m.safetensors", names=NAMES, plan_json=plan.to_json())
    for name in ("m.pt", "m.safetensors"):
        found = load(tmp_path / name)
        assert found.plan == plan
        state = found.model.state_dict()
        assert all(torch.equal(tensor, state[name]) for name, tensor in small.state_dict().items())
        with torch.no_grad():
            assert torch.allclose(found.model(IMAGE)[0], small(IMAGE)[0], atol=1e-4)
    shapes = {n: t.shape for n, t in small.state_dict().items()}
    assert {n: t.shape for n, t in rebuild(tmp_path / "m.json").model.state_dict().items()} == shapes


def test_a_network_that_was_pruned_so_is_pruned_so_again(network: nn.Module, tmp_path: Path) -> None:
    """Of a list of two the first left: what was the second is the first now, and leaves in turn."""
    small = compact(network, planned(network))
    again = PrunePlan((), trace_detector(small).inputs, blocks=("model.4.m.0", "model.6.m.0"))
    least = compact(small, again)
    assert [lists(least)[name] for name in ("model.4", "model.6")] == [0, 0]
    save_pair(least, tmp_path / "m.safetensors", names=NAMES, plan_json=again.to_json())
    state = load(tmp_path / "m.safetensors").model.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in least.state_dict().items())


def test_plain_yolo_loads_fuses_and_predicts(network: nn.Module, tmp_path: Path) -> None:
    plan = planned(network)
    small = compact(network, plan)
    path = save_pt(small, tmp_path / "m.pt", names=NAMES, plan_json=plan.to_json(), half=False)
    plain = deepcopy(YOLO(path).model).eval()
    with torch.no_grad():
        expected, found = small(IMAGE)[0], plain.fuse(verbose=False)(IMAGE)[0]  # type: ignore[operator]
    assert (found - expected).abs().max() < 1e-3 * expected.abs().max()


@pytest.mark.slow
def test_it_is_exported(network: nn.Module, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    path = save_pt(compact(network, planned(network)), tmp_path / "m.pt", names=NAMES)
    assert Path(YOLO(path).export(format="onnx", imgsz=64, simplify=False)).is_file()


@pytest.mark.slow
def test_training_keeps_the_shape(tiny: nn.Module, data_yaml: Path, tmp_path: Path) -> None:
    plan = planned(tiny)
    path = save_pt(compact(tiny, plan), tmp_path / "m.pt", names=NAMES, plan_json=plan.to_json())
    tuned = finetune(load(path).model, data_yaml, epochs=1, imgsz=64, batch=4)
    shapes = {n: t.shape for n, t in compact(tiny, plan).state_dict().items()}
    assert {n: t.shape for n, t in tuned.state_dict().items()} == shapes
