"""Detectors, from a file, a name, or an object in memory."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from ultralytics import RTDETR, YOLO
from ultralytics.engine.model import Model
from ultralytics.nn import tasks as networks
from ultralytics.utils.downloads import GITHUB_ASSETS_NAMES

from seqprune.errors import ModelError
from seqprune.graph.copying import copied
from seqprune.graph.unwatched import refuse
from seqprune.plain import UnreadableError, printable, why_no_file
from seqprune.plan import PrunePlan
from seqprune.yolo.data.classes import ITEM
from seqprune.yolo.files.bounded import bounded
from seqprune.yolo.files.contained import contained, one_line
from seqprune.yolo.files.description import check_description
from seqprune.yolo.files.guard import guarded
from seqprune.yolo.files.networks import NETWORKS, forget_inputs, is_fused, names_of, released
from seqprune.yolo.files.pruned import forget
from seqprune.yolo.files.sound import check_network
from seqprune.yolo.files.tensors import SUFFIX, load_pair
from seqprune.yolo.files.unpickle import UNREADABLE
from seqprune.yolo.task.tracing import grey_image

DETECTED, CLASSIFIED, LARGEST = 640, 224, 10_000
"""Sides in pixels that Ultralytics trains with unless it is told another, and the greatest that is taken for one."""
_EXPORTS = {
    ".onnx": "ONNX",
    ".torchscript": "TorchScript",
    ".engine": "TensorRT",
    ".tflite": "TensorFlow Lite",
    ".mlpackage": "CoreML",
    ".pb": "TensorFlow",
    ".xml": "OpenVINO",
}
_HEAVY = ("model", "ema", "optimizer")
_FUSED = (
    "its BatchNorm layers were fused away, as predicting and exporting do, and with them what channels are judged and "
    "repaired by; give the file as it was trained, or load it afresh from that"
)


@dataclass(frozen=True)
class LoadedDetector:
    """A detector ready to be looked at, and nobody else's: changing it changes nothing outside.

    Attributes:
        model: float32, on the CPU, in eval mode, not fused; ``requires_grad`` as found.
        task: ``detect``, or one of the other tasks of ``NETWORKS`` where the caller takes them.
        names: Class id to name.
        stride: Largest stride, in pixels.
        source: Where it came from, for messages and reports.
        checkpoint: What the file held beside the modules and the optimizer's state; None where there was no
            checkpoint file.
        plan: The last pruning of the model, taken from it; None where it carried none.
    """

    model: nn.Module
    task: str
    names: dict[int, str]
    stride: int
    source: str
    checkpoint: dict[str, Any] | None
    plan: PrunePlan | None = None

    @property
    def imgsz(self) -> int:
        """Side in pixels of the images that it is for, as its file says; what Ultralytics trains with otherwise."""
        said = (self.checkpoint or {}).get("train_args")
        size = said.get("imgsz") if isinstance(said, Mapping) else None
        known = CLASSIFIED if self.task == "classify" else DETECTED
        return size if isinstance(size, int) and 32 <= size <= LARGEST else known


def load(
    model: str | Path | Model | nn.Module,
    *,
    tasks: Collection[str] = ("detect",),
    trust: bool = False,
    seed: int | None = None,
) -> LoadedDetector:
    """Load a detector, without running what may be in its file.

    Args:
        model: A ``.pt`` file (its EMA weights where it has them, as Ultralytics does); a ``.safetensors`` file with
            its description beside it; a model ``.yaml`` or its name (random weights); the name of official weights,
            which Ultralytics downloads; an ``ultralytics.YOLO`` or ``RTDETR``; or a module of a network. Objects are
            copied.
        tasks: What the model may be for, of ``NETWORKS``.
        trust: Read a ``.pt`` as Ultralytics does, whatever it holds; see :mod:`seqprune.yolo.files.unpickle`.
        seed: Of random weights; as the generator of torch happens to be where left out.

    Raises:
        UntrustedError: The file holds what may run code.
        ModelError: There is no such file, it is damaged, it holds something else, or it is no detector. Says
            what was seen, the likely cause and what to do.
    """
    if isinstance(model, Model):
        inner, metadata = model.model, model.ckpt
        source = str(model.ckpt_path or model.model_name or type(model).__name__)
        if not isinstance(inner, nn.Module):
            raise ModelError(f"{inner}: an exported model has no layers to prune; give the .pt it was exported from")
        return _loaded(_copied(inner, source), source, metadata or None, model.task, tasks)
    if isinstance(model, nn.Module):
        source = type(model).__name__
        return _loaded(_copied(model, source), source, None, None, tasks)
    path = Path(model)
    if path.suffix.lower() in (".yaml", ".yml"):
        with torch.random.fork_rng(devices=[]):
            if seed is not None:
                torch.manual_seed(seed)
            return _from_yaml(path, tasks)
    if path.suffix.lower() == SUFFIX:
        network = load_pair(path)
        return _loaded(network, str(path), {"train_args": network.args}, None, tasks)
    _check_file(path)
    try:
        with contained(), guarded(trust):
            opened = YOLO(str(path))
    except UNREADABLE as error:
        raise ModelError(_diagnosis(path, error, trust)) from error
    try:
        loaded = _loaded(opened.model, str(path), opened.ckpt, opened.task, tasks)
        if not trust:
            _check_runs(loaded.model, path)
    except UNREADABLE as error:
        raise ModelError(_broken(path, error)) from error
    return loaded


def _check_runs(network: nn.Module, path: Path) -> None:
    """Run it once, counted: the numbers of its layers come from the file, and what it is used for runs it anyway."""
    check_network(network, str(path))  # Ultralytics has worked on it since
    with torch.no_grad(), bounded():
        network(grey_image(network, 64))
    forget_inputs(network)


def _broken(path: Path, error: BaseException) -> str:
    return f"{path}: holds a network that cannot be run ({one_line(error)}); it is damaged or of another version"


def _from_yaml(path: Path, tasks: Collection[str]) -> LoadedDetector:
    """Build a model with random weights from its architecture."""
    try:
        with contained():
            description = networks.yaml_model_load(str(path))
            check_description(description)
            by_queries = str(description["head"][-1][2]) == "RTDETRDecoder"
            with bounded():
                built = (RTDETR if by_queries else YOLO)(str(path))
    except (UnreadableError, *UNREADABLE) as error:
        cause = "no such model YAML" if isinstance(error, FileNotFoundError) else one_line(error)
        raise ModelError(f"{path}: cannot be built ({cause}); give a model YAML such as yolov8n.yaml") from error
    return _loaded(built.model, str(path), None, built.task, tasks)


def check_there(model: object) -> None:
    """Raise ModelError where a file is named that does not exist: said before anything else that is missing."""
    if not isinstance(model, str | Path) or Path(model).exists():
        return
    if Path(model).suffix.lower() not in (".yaml", ".yml"):
        _check_file(Path(model))
        return
    try:
        with contained():
            networks.yaml_model_load(str(model))
    except FileNotFoundError as error:
        raise ModelError(f"{model}: no such file, and no model YAML of Ultralytics' by that name") from error


def _check_file(path: Path) -> None:
    """Raise ModelError where the file plainly is no checkpoint, before any of it is unpickled."""
    if path.suffix.lower() in _EXPORTS:
        kind = _EXPORTS[path.suffix.lower()]
        raise ModelError(f"{path}: an exported {kind} model has no layers to prune; give the .pt it was exported from")
    if path.suffix.lower() not in (".pt", SUFFIX):
        raise ModelError(f"{path}: weights end in .pt and architectures in .yaml; give one of those")
    if (reason := why_no_file(path)) == "no such file":
        if str(path) in GITHUB_ASSETS_NAMES:
            return  # Ultralytics fetches its own
        raise ModelError(f"{path}: no such file; check the path")
    if "folder" in reason:
        raise ModelError(f"{path}: is a folder, not a checkpoint; give the .pt file in it")
    if reason:
        raise ModelError(f"{path}: {reason}; give a checkpoint")
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({one_line(error)}); check its permissions") from error
    if not head:
        raise ModelError(f"{path}: the file is empty, probably an interrupted download; fetch it again")
    if head.startswith(b"version https://git-lfs"):
        raise ModelError(f"{path}: is a Git LFS pointer, not the weights; run git lfs pull")
    if not head.startswith((b"PK", b"\x80")):
        raise ModelError(f"{path}: not a PyTorch checkpoint, it begins with {head[:12]!r}; give a .pt with a detector")


def _diagnosis(path: Path, error: BaseException, trust: bool) -> str:
    """Why Ultralytics could not load a file that looks like a checkpoint."""
    if not path.exists():
        return f"{path}: could not be downloaded ({one_line(error)}); fetch it yourself and give its path"
    try:
        with contained(), guarded(trust):
            checkpoint, _ = networks.torch_safe_load(str(path))
    except UNREADABLE as failure:
        return f"{path}: cannot be unpickled ({one_line(failure)}); it is damaged or needs other code"
    inner = checkpoint.get("ema") or checkpoint.get("model")
    if inner is None:
        return f"{path}: a dictionary without a model (keys: {_some(checkpoint)}); give one that YOLO saved"
    if not isinstance(inner, nn.Module):
        return f"{path}: holds a {type(inner).__name__} where the model should be; save the whole model"
    return f"{path}: cannot be loaded ({one_line(error)}); was it saved by another version of Ultralytics?"


def _some(mapping: dict[Any, Any]) -> str:
    keys = [printable(key, 40) if isinstance(key, str) else type(key).__name__ for key in list(mapping)[:4]]
    return ", ".join(keys) + (", …" if len(mapping) > len(keys) else "") or "none"


def _copied(module: nn.Module, source: str) -> nn.Module:
    """A deep copy, made outside inference mode so that it can be trained."""
    try:
        refuse(module)
        with torch.inference_mode(False):
            return copied(module)
    except ModelError as error:
        raise ModelError(f"{source}: {error}") from error


def _loaded(
    module: Any, source: str, metadata: dict[str, Any] | None, task: str | None, allowed: Collection[str]
) -> LoadedDetector:
    """Check that a module is an unfused network for one of the tasks and describe it."""
    if isinstance(module, nn.Module):
        module = released(module)  # a checkpoint from the midst of a distillation
    kind = next((task for task, network in NETWORKS.items() if isinstance(module, network)), None)
    task = task or getattr(module, "task", None) or kind
    aim = "detection" if set(allowed) == {"detect"} else ", ".join(allowed)
    if task is not None and task not in allowed:
        raise ModelError(f"{source}: is a model for {task}, not for {aim}; give one that is")
    if task is None or kind != task:
        raise ModelError(f"{source}: holds a {type(module).__name__}, not an Ultralytics detector; give one for {aim}")
    if is_fused(module):
        raise ModelError(f"{source}: {_FUSED}")
    module = module.float().cpu().eval()
    module.task = task
    forget_inputs(module)
    plan = forget(module)
    names = names_of(module)
    if len(names) == 1 and (metadata or {}).get("train_args", {}).get("single_cls"):
        names = module.names = dict(ITEM)  # whatever the class is called, all of the data's are it
    kept = None if metadata is None else {key: value for key, value in metadata.items() if key not in _HEAVY}
    return LoadedDetector(
        model=module,
        task=task,
        names={int(number): printable(name, 300) for number, name in names.items()},
        stride=int(max(module.stride)),
        source=source,
        checkpoint=kept,
        plan=plan,
    )
