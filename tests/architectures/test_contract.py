"""Every architecture is traced, pruned at random, and computes the same masked and compact, in both modes.

Outputs are compared whole, top-k selections of RT-DETR and of the heads without NMS included: in float64 the two
models differ in the last digits only, and random scores lie further apart than those. Detectors of torchvision are
compared before they select boxes, see ``torchvision_zoo.Dense``.

The smallest of each kind run by default, at half of the channels; all of them with ``-m architectures``.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
import torchvision_zoo
import ultralytics
import ultralytics_zoo
from measure import SHARES, measure
from torch import nn

from seqprune import compact, mask, trace
from seqprune.surgery import TOLERANCE
from seqprune.testing.networks import random_plan
from seqprune.testing.outputs import difference, prepare, run

QUICK_ULTRALYTICS = (
    "yolo11 yolo12 yolo26 yolo26-p2 yolo26-p6 yolov10n yolov3-tiny yolov5 yolov5-p6 yolov6 yolov8 yolov8-ghost "
    "yolov8-ghost-p2 yolov8-ghost-p6 yolov8-p2 yolov8-p6 yolov8-world yolov8-worldv2 yolov8-rtdetr yolov9t yoloe-26 "
    "yolo11-cls yolo11-obb yolo11-pose yolo11-seg yolo26-depth yolo26-sem"
).split()
QUICK_TORCHVISION = (
    "mobilenet_v3_small shufflenet_v2_x0_5 squeezenet1_1 lraspp_mobilenet_v3_large regnet_y_400mf densenet121 "
    "ssdlite320_mobilenet_v3_large convnext_tiny"
).split()
SECONDS = 20  # of the processor, for a trace


def check(model: nn.Module, inputs: tuple[torch.Tensor, ...], shares: Sequence[float]) -> None:
    seen = measure(model, inputs, shares)
    assert seen.seconds <= SECONDS
    assert seen.pruned
    assert seen.difference <= TOLERANCE[inputs[0].dtype]
    assert not [note for note in seen.notes if "not traced" in note]


@pytest.mark.parametrize("name", [name for name in QUICK_ULTRALYTICS if name in ultralytics_zoo.names()])
def test_detectors_at_the_smallest_scale_and_every_other_task(name: str) -> None:
    check(*ultralytics_zoo.build(name), [0.5])


@pytest.mark.parametrize("name", QUICK_TORCHVISION)
def test_families_of_torchvision(name: str) -> None:
    check(*torchvision_zoo.build(name), [0.5])


@pytest.mark.slow
@pytest.mark.architectures
@pytest.mark.parametrize("name", ultralytics_zoo.names())
def test_ultralytics(name: str) -> None:
    check(*ultralytics_zoo.build(name), SHARES)


@pytest.mark.slow
@pytest.mark.architectures
@pytest.mark.parametrize("name", torchvision_zoo.names())
def test_torchvision(name: str) -> None:
    check(*torchvision_zoo.build(name), SHARES)


@pytest.mark.parametrize("name", ["yolo11", "yolo12", "yolov9t", "yolov6", "yolov8-ghost"])
def test_the_compact_network_fuses(name: str) -> None:
    """Fusing reads the widths that convolutions hold in attributes."""
    model, inputs = ultralytics_zoo.build(name)
    prepare(model)
    graph = trace(model, inputs)
    small, inputs = compact(model, random_plan(graph, 0), graph).float(), (inputs[0].float(),)
    reference = run(small, inputs, training=False)
    fused = run(small.fuse(verbose=False), inputs, training=False)
    assert difference(reference[:1], fused[:1]) <= 1e-3  # the detections; training's heads are gone


@pytest.mark.parametrize("name", ["fasterrcnn_mobilenet_v3_large_320_fpn", "ssdlite320_mobilenet_v3_large"])
def test_the_whole_detector_runs_on_what_was_pruned_before_its_boxes(name: str) -> None:
    model, inputs = torchvision_zoo.build(name)
    prepare(model)
    graph = trace(model, inputs)
    plan = random_plan(graph, 0, 0.25)
    masked, small = (prune(model, plan, graph).eval().detector(list(inputs[0])) for prune in (mask, compact))
    torch.testing.assert_close(small, masked, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["fasterrcnn_mobilenet_v3_large_320_fpn", "ssdlite320_mobilenet_v3_large"])
def test_a_whole_detector_is_pruned_exactly_or_not_at_all(name: str) -> None:
    model, inputs = torchvision_zoo.build(name)
    prepare(model)
    images = (list(inputs[0]),)
    graph = trace(model.detector, images)
    assert "training mode was not traced" in graph.notes[0]
    plan = random_plan(graph, 0, 0.25)
    masked, small = (prune(model.detector, plan, graph).eval()(*images) for prune in (mask, compact))
    torch.testing.assert_close(small, masked, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in ("yoloe-v8", "yoloe-26-seg") if name in ultralytics_zoo.names()])
def test_visual_prompts_read_the_pruned_maps(name: str) -> None:
    """A trace without prompts never ran the layers that read them: they kept their width while the neck shrank."""
    model, inputs = ultralytics_zoo.build(name)
    prepare(model)
    graph = trace(model, inputs)
    plan = random_plan(graph, 0)
    prompt = torch.zeros(1, 2, 16, 16)
    prompt[:, 0, 2:7, 3:9] = prompt[:, 1, 8:, 8:] = 1
    # Ultralytics computes the scores of prompts in float32 alone.
    masked, small = (prune(model, plan, graph).float().eval() for prune in (mask, compact))
    with torch.no_grad():
        expected, got = (m.predict(inputs[0].float(), vpe=prompt, return_vpe=True) for m in (masked, small))
    assert small.model[-1].savpe.cv1[0][0].conv.in_channels < masked.model[-1].savpe.cv1[0][0].conv.in_channels
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4)


def test_a_wrong_channel_would_be_found() -> None:
    """The oracle is tested too: one weight read from a neighbour, deep in the network, shows above the tolerance."""
    model, inputs = ultralytics_zoo.build("yolo11")
    prepare(model)
    whole = run(model, inputs, training=False)
    weight = model.get_submodule("model.4.m.0.cv1.conv").weight
    weight.data[:, 0] = weight.data[:, 1]
    assert difference(whole, run(model, inputs, training=False)) > 1e-4


def test_every_architecture_is_there() -> None:
    """Ultralytics 8.4.190 ships 66; a release that adds some adds them here."""
    if tuple(map(int, ultralytics.__version__.split(".")[:3])) >= (8, 4, 190):
        assert len(ultralytics_zoo.names()) >= 66
        assert {*QUICK_ULTRALYTICS} <= {*ultralytics_zoo.names()}
    assert len(torchvision_zoo.names()) >= 100
    assert len(torchvision_zoo.peer_names()) == 85
