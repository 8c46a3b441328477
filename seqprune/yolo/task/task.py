"""What the engine asks of an Ultralytics network and its images, answered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from seqprune.engine.portrait import PER_CLASS
from seqprune.engine.task import Judge
from seqprune.errors import ModelError
from seqprune.graph import ChannelGraph
from seqprune.observe.batch import LabelledImages, Noise
from seqprune.observe.relevance import Probe
from seqprune.observe.streaming import Blocks
from seqprune.plan import PrunePlan
from seqprune.surgery import Difference
from seqprune.yolo.data.files import FileImages
from seqprune.yolo.files.heads import knows_some
from seqprune.yolo.files.networks import is_fixed
from seqprune.yolo.files.save import bytes_of, save_pt
from seqprune.yolo.files.tensors import SUFFIX, save_pair
from seqprune.yolo.task.blocks import blocks_of
from seqprune.yolo.task.exporting import runnable
from seqprune.yolo.task.gradients import loss_gradients
from seqprune.yolo.task.judge import judge_for
from seqprune.yolo.task.measured import SameImages
from seqprune.yolo.task.pictures import pictures
from seqprune.yolo.task.predict import predict
from seqprune.yolo.task.probe import probe_for
from seqprune.yolo.task.proof import prove
from seqprune.yolo.task.quantising import quantised
from seqprune.yolo.task.tracing import grey_image, trace_detector
from seqprune.yolo.task.validate import ClassMetrics, Metrics, validate, validate_classes

ENOUGH = 2
"""Images to calibrate eight bits on that are timed and thrown away: what they take hangs on no image."""


@dataclass(frozen=True)
class YoloTask:
    """See :class:`seqprune.engine.task.Task`.

    Attributes:
        images: train images, or noise where nothing is chosen by images.
        names: class id to name.
        imgsz: side of the images in pixels, at which operations and time are counted.
        kind: ``detect`` or another task of Ultralytics'.
        validation: how accuracy is measured: arguments of :func:`seqprune.yolo.task.validate.validate`; ``None``
            measures none.
        source: where the network came from.
        same: holds all measurements to the images of the first.
        bits: 8 where what runs elsewhere is brought to eight bits before.
    """

    images: FileImages | Noise
    names: Mapping[int, str]
    imgsz: int
    kind: str = "detect"
    validation: Mapping[str, Any] | None = field(default=None, repr=False)
    source: str = ""
    same: SameImages = field(default_factory=lambda: SameImages(lambda _text: None), repr=False)
    bits: int = 32

    @property
    def classes(self) -> int:
        return len(self.names)

    @property
    def classifies(self) -> bool:
        return self.kind == "classify"

    def example(self, model: nn.Module) -> torch.Tensor:
        return grey_image(model, self.imgsz)

    def runnable(self, model: nn.Module, runtime: str, folder: Path) -> nn.Module | Path:
        imgsz = int(self.example(model).shape[-1])
        made = runnable(model, runtime, folder, imgsz=imgsz)
        if self.bits == 32 or isinstance(made, nn.Module):
            return made
        return quantised(made, runtime, self.images, model, imgsz, folder, ENOUGH)

    def at_size(self, imgsz: int) -> YoloTask:
        """The same measured on images of another size in pixels; those that are looked at stay as they are."""
        measured = None if self.validation is None else {**self.validation, "imgsz": imgsz}
        return replace(self, imgsz=imgsz, validation=measured)

    def trace(self, model: nn.Module) -> ChannelGraph:
        return trace_detector(model)

    @property
    def predict(self) -> Callable[[nn.Module, torch.Tensor], list[torch.Tensor]]:
        return predict

    def probe(self, model: nn.Module) -> tuple[nn.Module, Probe] | None:
        return probe_for(model, self.images, self.classes)

    def judge(self, original: nn.Module, held: LabelledImages) -> Judge | None:
        return judge_for(original, held, self.classes)

    def gradients(self, model: nn.Module) -> Mapping[str, torch.Tensor]:
        return loss_gradients(model, self.images)

    def is_fixed(self, layer: str) -> bool:
        return is_fixed(layer)

    def blocks(self, model: nn.Module) -> Blocks | None:
        return blocks_of(model)

    def accuracy(self, model: nn.Module) -> Mapping[str, float]:
        if self.validation is None:
            return {}
        found: Metrics | ClassMetrics
        classes: dict[str, float] = {}
        if self.classifies:
            found = validate_classes(model, **self.validation)
        else:
            found = validate(model, **self.validation, some=knows_some(model))
            classes = {f"{PER_CLASS}{self.names.get(kind, kind)}": value for kind, value in found.by_class.items()}
        self.same.check(found.images)
        return {name: value for name, value in asdict(found).items() if isinstance(value, float)} | classes

    def pictures(self, before: nn.Module, after: nn.Module) -> tuple[dict[str, Any], ...]:
        if self.validation is None:
            return ()
        how = {"task": self.kind, "imgsz": self.imgsz, "some": knows_some(before)}
        return pictures(before, after, self.validation["data"], self.names, **how)

    @property
    def suffix(self) -> str:
        return ".pt"

    @property
    def unreadable_val(self) -> tuple[str, ...]:
        return self.same.unreadable

    def prove(self, masked: nn.Module, small: nn.Module, inputs: torch.Tensor) -> tuple[Difference, str]:
        return prove(masked, small, inputs)

    def save(self, model: nn.Module, path: Path, plan: PrunePlan, half: bool = True) -> Path:
        about: dict[str, Any] = {"names": dict(self.names), "plan_json": plan.to_json()}
        if path.suffix == SUFFIX:
            return save_pair(model, path, **about)
        arguments = {} if plan.imgsz is None else {"imgsz": plan.imgsz}
        return save_pt(model, path, **about, train_args=arguments, half=half)

    def file_bytes(self, model: nn.Module, plan: PrunePlan | None) -> int | None:
        given = Path(self.source)
        if plan is None and given.suffix in (".pt", SUFFIX) and given.is_file():
            return given.stat().st_size
        try:
            return bytes_of(model, names=dict(self.names), plan_json=None if plan is None else plan.to_json())
        except ModelError:
            return None
