"""The whole job for a network of Ultralytics': load, look, prune front to back, prove, fine-tune, measure."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import nn

from seqprune.engine.engine import Engine, streams_for
from seqprune.engine.listener import Listener
from seqprune.engine.presets import Way, settings_of, way_of
from seqprune.engine.sequential import StepReport, front_to_back
from seqprune.errors import InputError
from seqprune.graph import ChannelGraph
from seqprune.observe.batch import LabelledImages, Noise
from seqprune.observe.device import as_device
from seqprune.observe.forward import Forward
from seqprune.observe.inputs import as_input
from seqprune.observe.ranks import Ranks, connect
from seqprune.observe.shelf import CACHE_BYTES
from seqprune.plan import PrunePlan
from seqprune.report.html import write_html
from seqprune.report.record import ClassMeasurements, Measurements, Record, versions
from seqprune.select.layers import block_of, choose_layers
from seqprune.surgery import Difference, compact, verify
from seqprune.yolo import save_pt
from seqprune.yolo.data.images import FileImages, images_for
from seqprune.yolo.files.load import LoadedDetector, load
from seqprune.yolo.files.networks import NETWORKS
from seqprune.yolo.files.pruned import is_masked
from seqprune.yolo.files.tensors import SUFFIX, save_pair
from seqprune.yolo.task.profile import gflops, latencies_ms, parameters
from seqprune.yolo.task.tracing import image_channels, padded, trace_detector
from seqprune.yolo.task.validate import validate, validate_classes
from seqprune.yolo.train.teacher import check_student
from seqprune.yolo.train.tuning import Tuner, check_names

DETECTED, CLASSIFIED = 640, 224
"""Sides of images in pixels, where they are not given: those that Ultralytics trains with."""
LAYERS, BLOCKS = 3, (1, 2, 3, 4, 5)
"""What preset ``seed`` chooses: so many layers of these top-level modules."""
Mode = Literal["compact", "mask"]


@dataclass(frozen=True)
class PruneResult:
    """What came out.

    Attributes:
        model: the pruned network, compact or masked, on the CPU, for inference.
        plan: what stays of every layer that lost channels.
        steps: one report a layer, front to back.
        record: everything measured, as ``report.json`` holds it.
    """

    model: nn.Module
    plan: PrunePlan
    steps: tuple[StepReport, ...]
    record: Record
    names: dict[int, str] = field(repr=False)

    def save(self, path: str | Path) -> Path:
        """Writes weights that plain Ultralytics loads; nothing is left behind where writing fails.

        Where the name ends in ``.safetensors``, the tensors and, beside them, a description: files without code,
        which :func:`seqprune.prune` and ``seqprune finetune`` take.
        """
        write = save_pair if Path(path).suffix == SUFFIX else save_pt
        return write(self.model, path, names=self.names, plan_json=self.plan.to_json())

    def report(self, path: str | Path) -> Path:
        """Writes ``report.json``, or a page with plots where the name ends in ``.html``."""
        path = Path(path)
        if path.suffix == ".html":
            write_html(self.record, path)
        else:
            path.write_text(self.record.to_json(), encoding="utf-8")
        return path


def prune(
    model: str | Path | nn.Module | Any,
    data: str | Path | None = None,
    *,
    preset: str = "seed",
    layers: int | Sequence[str] | None = None,
    blocks: Iterable[int] | None = None,
    keep: str | float | None = None,
    represent: str | None = None,
    match: str | None = None,
    round_to: int | None = None,
    images: int | None = None,
    imgsz: int | None = None,
    batch: int = 16,
    device: str | int = "cpu",
    mode: Mode = "compact",
    target: str | None = None,
    recover: str | None = None,
    protect: Sequence[str] = (),
    criterion: str | None = None,
    cache_bytes: int = CACHE_BYTES,
    cache_half: bool = False,
    amp: bool = False,
    finetune: int = 0,
    finetune_step: int = 0,
    distill: bool = False,
    training: Mapping[str, Any] | None = None,
    seed: int = 0,
    val: bool = True,
    trust: bool = False,
    listener: Listener | None = None,
) -> PruneResult:
    """Prunes a trained network front to back: a detector, or one for another task of Ultralytics'.

    Args:
        model: weights, an ``ultralytics.YOLO`` or its network; never changed.
        data: dataset YAML with labelled ``train`` and ``val`` images; for classification a folder with those two, in
            each a folder a class. May be left out where nothing is chosen or repaired by images (``fast``): accuracy is
            not measured then, and the proof is made on seeded noise.
        preset: ``seed``, the predecessor's way of choosing a few layers front to back; ``accurate``, the whole
            network to a target, where removal costs least, with every convolution fitted anew; or ``fast``, the
            whole network to a target by scores of its channels.
        layers: how many layers to choose, or their module paths in any order (``seed``); 3 where left out.
        blocks: top-level modules to choose from, where layers are not named (``seed``); 1 to 5 where left out.
        keep, represent, match, round_to: see :class:`seqprune.engine.sequential.Settings`; override the preset.
            With a ratio to keep, or a target, counts are rounded up to a multiple of 8 unless ``round_to`` says
            otherwise.
        images: training images to look at, a seeded sample; all of them where left out.
        imgsz: longer side of the images in pixels; 640, or 224 for classification, where left out.
        batch: images at a time.
        device: ``cpu`` or the number of a GPU.
        mode: ``compact`` takes channels out, ``mask`` zeroes them.
        target: ``params=0.8``, ``flops=0.6`` or ``latency=0.7``: what stays (``accurate``, ``fast``).
        recover: ``ls``, ``bias``, ``bn`` or ``none``: repairs without training, each kept only where held-out
            images say that it helps; ``ls`` by default for ``accurate``, ``none`` for the others.
        protect: module paths that stay whole (``accurate``, ``fast``).
        criterion: what scores the channels, see :mod:`seqprune.budget.criteria` (``fast``).
        cache_bytes: memory for the block outputs that let all observations cost about one pass over the
            images; what outgrows it goes to disk. 0 runs the network from the start for every layer.
        cache_half: keep block outputs in half precision.
        amp: observe with automatic mixed precision.
        finetune: epochs on the training images afterwards, in the pruned shape.
        finetune_step: epochs after each pruned layer, its channels masked, before the next is looked at.
        distill: whether the model as it was given is the teacher of the fine-tuning, beside the labels.
        training: further arguments of Ultralytics' for the fine-tuning (``lr0``, augmentation …).
        seed: of every random choice.
        val: whether accuracy before and after is measured on the ``val`` images.
        trust: load a ``.pt`` whatever it holds; it may run code.
        listener: told what is going on.

    Under ``torchrun`` the processes share the images and all of them return the same plan and model; only the first
    measures accuracy and speed, so the records of the others lack them.

    Raises:
        InputError: weights, data, names or numbers that cannot be used.
        VerificationError: compact and masked model differ; nothing is returned then.
        TrainingError: fine-tuning failed; its ``result`` holds what was pruned before it.
    """
    settings = settings_of(preset, keep, represent, match, round_to, seed)
    way = way_of(preset, target, recover, protect, criterion)
    if not data and (way.looks_at_images or finetune):
        raise InputError("these settings look at images: give --data, or prune with preset fast and no more")
    data = data or ""
    if (
        mode not in ("compact", "mask")
        or min(finetune, finetune_step) < 0
        or (imgsz is not None and imgsz < 32)
        or batch < 1
        or (images is not None and images < 1)
    ):
        raise InputError(
            f"mode={mode}, finetune={finetune}, finetune_step={finetune_step}, imgsz={imgsz}, batch={batch}, "
            f"images={images}: mode is compact or mask, imgsz at least 32, the other numbers positive"
        )
    told, ranks = listener or Listener(), connect()
    _check_together(preset, way, (layers, blocks) != (None, None), finetune, finetune_step, distill, ranks)
    check_names(training or {})
    torch_device = own_device(as_device(str(device)), ranks)
    detector = _settled(load(model, tasks=NETWORKS, trust=trust, seed=seed), told)
    if distill:
        check_student(detector.model)
    graph = trace_detector(detector.model)
    names = [] if way.target else choose(graph, layers, blocks)
    imgsz = imgsz or (CLASSIFIED if detector.task == "classify" else DETECTED)
    seen = _images(detector, data, imgsz, batch, images, seed, told)
    measure = _Measure(data, imgsz, batch, torch_device, bool(val and data and not ranks.rank), told)
    before = measure(detector.model, "before")
    arguments = {"imgsz": imgsz, "batch": batch, "device": str(device), "seed": seed, **(training or {})}
    arguments["teacher"] = detector.model if distill else None
    tune = Tuner(data, arguments, told.stage)
    engine = Engine(
        deepcopy(detector.model).to(torch_device),
        graph,
        seen,
        streams_for(detector.model, cache_bytes, cache_half, told.warning),
        Forward(amp, told.warning),
        told,
    )
    relevance = engine.weigh_errors() if way.weighs_errors else None
    if way.target is None:
        after_step = (lambda now, so_far: tune(now, so_far, finetune_step)) if finetune_step else None
        chosen = engine.front_to_back(names, len(detector.names), settings, after_step=after_step, ranks=ranks)
        if all(step.status == "skipped" for step in chosen.steps):
            raise InputError(f"no layer could be pruned; {chosen.steps[0].layer}: {chosen.steps[0].reason}")
    else:
        chosen = engine.to_target(
            way, imgsz=imgsz, round_to=settings.round_to, protect=protect, seed=seed, relevance=relevance
        )
    masked, repairs = engine.repair(chosen, way.recover, relevance)
    engine.close()
    plan, steps = chosen.plan, chosen.steps
    masked = masked.cpu()
    small = compact(masked, plan, graph)
    difference = verify(masked, small, example_of(seen, small))
    pruned = tune(small if mode == "compact" else masked, plan, finetune)
    after = measure(pruned, "after")
    # Timed in turns at the end: minutes apart, a busy machine would tell more than the models.
    slow, fast = (math.nan, math.nan) if ranks.rank else latencies_ms([detector.model, pruned], imgsz, "cpu")
    record = Record(
        model=detector.source,
        data=str(data),
        preset=preset,
        seed=seed,
        mode=mode,
        finetune=0 if tune.failure else finetune,
        settings=(asdict(settings) if way.target is None else {"round_to": settings.round_to, "seed": seed})
        | {"imgsz": imgsz, "batch": batch, "images": seen.image_count, "device": str(device)}
        | {"finetune_step": finetune_step, "distill": distill, "target": target, "recover": way.recover}
        | {"protect": list(protect), "criterion": way.criterion, "verified_on": "images" if data else "noise"},
        versions=versions(),
        steps=steps,
        verify=difference,
        repairs=repairs,
        before=replace(before, latency_ms=slow),
        after=replace(after, latency_ms=fast),
        unreadable=tuple(seen.unreadable),
    )
    result = PruneResult(pruned, plan, steps, record, detector.names)
    if tune.failure is not None:
        tune.failure.result = result
        raise tune.failure
    return result


def _check_together(
    preset: str, way: Way, chosen: bool, finetune: int, finetune_step: int, distill: bool, ranks: Ranks
) -> None:
    """
    Raises:
        InputError: what does not go together.
    """
    if way.target is not None and chosen:
        raise InputError(f"preset {preset} chooses from the whole network: leave out layers and blocks")
    if ranks.count > 1 and finetune + finetune_step:
        raise InputError("fine-tuning is not part of a run under torchrun: prune there, then `seqprune finetune`")
    if ranks.count > 1 and way != Way(None, "none"):
        raise InputError("targets and recovery run in one process: leave torchrun out, or take --preset seed")
    if way.target is not None and finetune_step:
        raise InputError("a target is met in one step: give finetune instead of finetune_step")
    if finetune_step and way.recover in ("ls", "bias"):
        raise InputError(
            f"recover={way.recover} fits to the weights as they were, and finetune_step trains them on the way: give "
            "finetune instead of finetune_step, or recover=bn"
        )
    if distill and not finetune + finetune_step:
        raise InputError("distill teaches while fine-tuning: give finetune or finetune_step too, or leave it out")


def _images(
    detector: LoadedDetector, data: str | Path, imgsz: int, batch: int, images: int | None, seed: int, told: Listener
) -> FileImages:
    """Those to look at; without data noise, of which only an example is taken."""
    if not data:
        return cast(FileImages, Noise(padded(imgsz, detector.stride), image_channels(detector.model), seed))
    seen = images_for(
        detector.task,
        data,
        split="train",
        imgsz=imgsz,
        batch=batch,
        images=images,
        stride=detector.stride,
        names=detector.names,
        seed=seed,
    )
    if seen.unreadable:
        told.warning(f"left out as unreadable, {len(seen.unreadable)}: {', '.join(seen.unreadable[:5])}")
    return seen


def choose(graph: ChannelGraph, layers: int | Sequence[str] | None, blocks: Iterable[int] | None) -> list[str]:
    """Layers front to back: those named, or as many as asked for from ``blocks``."""
    layers = LAYERS if layers is None else layers
    if not isinstance(layers, int):
        return front_to_back(graph, layers)
    last = max((block for entry in graph.all_layers if (block := block_of(entry.name)) is not None), default=0)
    blocks = BLOCKS if blocks is None else tuple(blocks)
    if strange := [b for b in blocks if not 0 <= b <= last]:
        raise InputError(f"the model has no block {strange[0]}: its blocks are 0 to {last}")
    candidates = [(e.name, e.channels) for e in graph.layers if e.kind == "Conv2d"]
    return choose_layers(candidates, blocks, layers)


def own_device(device: torch.device, ranks: Ranks) -> torch.device:
    """The GPU that ``torchrun`` means for this process, where a GPU is asked for and there are several processes."""
    if ranks.count == 1 or device.type != "cuda":
        return device
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def example_of(images: LabelledImages, model: nn.Module) -> torch.Tensor:
    """Two real images as the model takes them."""
    return as_input(next(iter(images)).images[:2], model)


def _settled(detector: LoadedDetector, told: Listener) -> LoadedDetector:
    """A detector without the channels that an earlier pruning masked: the new plan knows nothing of them."""
    if detector.plan is None or not is_masked(detector.model, detector.plan):
        return detector
    told.warning(f"{detector.source} is masked: its masked channels are taken out before it is pruned again")
    return replace(detector, model=compact(detector.model, detector.plan), plan=None)


@dataclass(frozen=True)
class _Measure:
    """Accuracy, size and speed of a model on the ``val`` images."""

    data: str | Path
    imgsz: int
    batch: int
    device: torch.device
    val: bool
    told: Listener

    def __call__(self, model: nn.Module, when: str) -> Measurements | ClassMeasurements:
        self.told.stage(f"measure {when}", None)
        classifies = getattr(model, "task", "") == "classify"
        kind, look = (ClassMeasurements, validate_classes) if classifies else (Measurements, validate)
        size = kind(parameters(model), gflops(model, self.imgsz), math.nan)
        if not self.val:
            return size
        metrics = look(model, self.data, imgsz=self.imgsz, batch=self.batch, device=str(self.device))
        return replace(size, **{name: value for name, value in asdict(metrics).items() if hasattr(size, name)})


__all__ = ["Difference", "PruneResult", "prune"]
