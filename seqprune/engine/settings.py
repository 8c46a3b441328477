"""What one run is asked for: what to look at, how to choose and repair, how to train. Checked where they are made."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from seqprune.engine.kinds import settle
from seqprune.engine.modules import Evaluate
from seqprune.engine.outputs import Outputs
from seqprune.engine.presets import ACTIVATION, ALIASES, Way, preset_of, settings_of, way_of
from seqprune.engine.steps import Settings
from seqprune.errors import InputError
from seqprune.observe.inputs import Inputs
from seqprune.observe.shelf import CACHE_BYTES
from seqprune.plain import is_count
from seqprune.runtimes.where import Where

Mode = Literal["compact", "mask"]


@dataclass(frozen=True)
class Look:
    """What is looked at.

    Attributes:
        images: so many training images, a seeded sample; all of them where left out.
        imgsz: longer side of the images in pixels; what the network is trained with where left out.
        batch: images at a time.
        device: ``cpu`` or the number of a GPU.
        cache_bytes: memory for the block outputs that let all observations cost about one pass over the images; what
            outgrows it goes to disk. 0 runs the network from the start for every layer.
        cache_half: keep block outputs in half precision.
        amp: observe with automatic mixed precision.
        val: whether accuracy before and after is measured.
        val_steps: whether it is measured after every pruned layer too (``activation``); with training between the
            layers it always is.
        runtime: where time is measured: ``torch``, ``onnxruntime``, ``openvino``, ``ncnn`` or ``tensorrt``.
        threads: of a processor for that; as many as torch uses where left out.
        full: whether OpenVINO has to compute in float32 for that.
        front: whether the unpruned network is measured on smaller images too, for a page that says what that trivial
            way gives: all sizes down to the time or the operations that the pruned one has. Left out, the two nearest
            to it where the target is time.
        int8: whether what was pruned is brought to eight bits too, by the tool of ``runtime``, and measured. A target
            of time is that of the file in eight bits then.
    """

    images: int | None = None
    imgsz: int | None = None
    batch: int = 16
    device: str | int = "cpu"
    cache_bytes: int = CACHE_BYTES
    cache_half: bool = False
    amp: bool = False
    val: bool = True
    val_steps: bool = False
    runtime: str = "torch"
    threads: int | None = None
    full: bool = False
    front: bool | None = None
    int8: bool = False

    @property
    def where(self) -> Where:
        """Time is measured.

        Raises:
            InputError: not there.
        """
        return Where(self.runtime, self.threads, str(self.device).partition(",")[0], self.full).settled()

    def __post_init__(self) -> None:
        settle(self)
        _ = self.where  # checked now, not after an hour
        sizes = ((self.imgsz, 32), (self.batch, 1), (self.images, 1))
        if self.batch is None or not all(size is None or is_count(size, least) for size, least in sizes):
            raise InputError(
                f"imgsz={self.imgsz}, batch={self.batch}, images={self.images}: imgsz is at least 32, the others "
                "positive"
            )
        if not is_count(self.cache_bytes, 0, 2**63):
            raise InputError(f"cache_bytes={self.cache_bytes!r}: give a whole number, 0 or more")


@dataclass(frozen=True)
class Choose:
    """What stays, and what is repaired.

    Attributes:
        preset: ``activation`` (once ``seed``), a few layers front to back by what their channels do at objects;
            ``accurate``, the whole network to a target, where removal costs least, with every layer fitted anew; or
            ``fast``, the whole network to a target by scores of its channels.
        layers: how many layers to choose, or their module paths in any order (``activation``); 3 where left out.
        blocks: top-level modules to choose from, where layers are not named (``activation``); 1 to 5 where left out.
        keep, represent, match, round_to: see :class:`seqprune.engine.steps.Settings`; override the preset. With a
            ratio to keep, or a target, counts are rounded up to a multiple of 8 unless ``round_to`` says otherwise.
        target: ``params=0.8``, ``flops=0.6`` or ``latency=0.7``: what stays (``accurate``, ``fast``).
        recover: ``ls``, ``bias``, ``bn`` or ``none``: repairs without training, each kept only where held-out images
            say that it helps; ``ls`` by default for ``accurate``, ``none`` for the others.
        protect: module paths that stay whole (``accurate``, ``fast``).
        by: moves that are allowed (``accurate``): ``channels``, ``factors``, ``blocks``, ``size``. Where left out the
            first two, and ``size`` for the time of a detector whose ``imgsz`` is not given.
        criterion: what scores the channels, see :mod:`seqprune.budget.criteria` (``fast``).
        mode: ``compact`` takes channels out, ``mask`` zeroes them.
        seed: of every random choice.
    """

    preset: str = ACTIVATION
    layers: int | Sequence[str] | None = None
    blocks: Iterable[int] | None = None
    keep: str | float | None = None
    represent: str | None = None
    match: str | None = None
    round_to: int | None = None
    target: str | None = None
    recover: str | None = None
    protect: Sequence[str] = ()
    criterion: str | None = None
    by: Sequence[str] | None = None
    mode: Mode = "compact"
    seed: int = 0

    def __post_init__(self) -> None:
        settle(self)
        object.__setattr__(self, "preset", preset_of(self.preset))
        _ = self.settings, self.way  # checked now, not after an hour
        if self.mode not in ("compact", "mask"):
            raise InputError(f"mode={self.mode!r} is not known: mode is compact or mask")
        if self.way.target is not None and (self.layers, self.blocks) != (None, None):
            raise InputError(f"preset {self.preset} chooses from the whole network: leave out layers and blocks")

    @cached_property
    def settings(self) -> Settings:
        """Of the clusters, and what counts are rounded to."""
        return settings_of(self.preset, self.keep, self.represent, self.match, self.round_to, self.seed)

    @cached_property
    def way(self) -> Way:
        """Which engine runs, and what is repaired after it."""
        return way_of(self.preset, self.target, self.recover, self.protect, self.criterion, self.by)


@dataclass(frozen=True)
class Train:
    """What is trained.

    Attributes:
        epochs: on the training images afterwards, in the pruned shape.
        step_epochs: after each pruned layer, its channels masked, before the next is looked at.
        distill: whether the model as it was given is the teacher, beside the labels.
        arguments: further ones of the trainer's (``lr0``, augmentation …).
    """

    epochs: int = 0
    step_epochs: int = 0
    distill: bool = False
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        settle(self, {"arguments": "training"})
        object.__setattr__(self, "arguments", self.arguments or {})
        if not (is_count(self.epochs, 0) and is_count(self.step_epochs, 0)):
            raise InputError(f"finetune={self.epochs}, finetune_step={self.step_epochs}: give epochs, 0 or more")
        if self.distill and not self.epochs + self.step_epochs:
            raise InputError("distill teaches while fine-tuning: give finetune or finetune_step too, or leave it out")


@dataclass(frozen=True)
class Open:
    """How a network and its data are opened.

    Attributes:
        trust: load a ``.pt`` whatever it holds; it may run code.
        classes: cut an Ultralytics network down to these of its classes, by name or number, before anything else;
            objects of others are left out.
        example_inputs: what a module takes, where there are no data.
        evaluate: measures a module's accuracy, by name; top-1 and top-5 on the labelled ``val`` data without it.
        outputs: what a module returns: ``logits``, ``values``, or ``auto``.
        fixed: module paths of a module that are not fitted anew.
        weights: a file for a network that is named by what builds it (``timm:NAME``): ``.safetensors``, or a ``.pt``
            with tensors by name, which is read as data.
        mean, std: of each channel of the images in a folder, in [0, 1]; what is known of the network where left out.
    """

    trust: bool = False
    classes: Collection[str | int] | None = None
    example_inputs: Inputs = None
    evaluate: Evaluate | None = None
    outputs: Outputs = "auto"
    fixed: Sequence[str] = ()
    weights: str | Path | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None

    def __post_init__(self) -> None:
        settle(self)
        if self.outputs not in ("auto", "logits", "values"):
            raise InputError(f"outputs={self.outputs!r} is not known: choose auto, logits or values")


def as_plain(look: Look, choose: Choose, train: Train) -> dict[str, Any]:
    """Settings as JSON can hold them: what decides the result, without where and how fast."""
    faster = ["device", "cache_bytes", "val", "val_steps", "front"]
    if not (look.int8 and choose.way.by_time):  # what a target of time is met in
        faster.append("int8")
    found = {name: value for name, value in vars(look).items() if name not in faster}
    chosen = {entry.name: getattr(choose, entry.name) for entry in fields(choose)}
    for name in ("layers", "blocks", "protect", "by"):
        if chosen[name] is not None and not isinstance(chosen[name], int):
            chosen[name] = list(chosen[name])
    # Runs that were begun under an older name go on.
    chosen["preset"] = next((old for old, new in ALIASES.items() if new == choose.preset), choose.preset)
    trained = {entry.name: getattr(train, entry.name) for entry in fields(train)}
    return found | chosen | trained | {"arguments": {name: str(value) for name, value in train.arguments.items()}}


def check_together(look: Look, choose: Choose, train: Train, processes: int, has_data: bool) -> None:
    """
    Raises:
        InputError: what does not go together.
    """
    way = choose.way
    if not has_data and (way.looks_at_images or train.epochs):
        raise InputError(
            "these settings look at images: give --data (data= in Python), or prune with preset fast and no more"
        )
    if processes > 1 and train.epochs + train.step_epochs:
        raise InputError("fine-tuning is not part of a run under torchrun: prune there, then `seqprune finetune`")
    if processes > 1 and {"size", "blocks"} & {*way.by}:
        raise InputError("sizes of images and blocks are tried in one process: leave torchrun out, or size and blocks")
    if processes > 1 and look.int8 and way.by_time:
        raise InputError("a target of time in eight bits is met in one process: leave torchrun out, or int8")
    if processes > 1 and way.target is None and way.recover != "none":
        raise InputError("preset activation is repaired in one process: leave torchrun out, or --recover")
    if way.target is not None and train.step_epochs:
        raise InputError("a target is met in one step: give finetune instead of finetune_step")
    if train.step_epochs and way.recover in ("ls", "bias"):
        raise InputError(
            f"recover={way.recover} fits to the weights as they were, and finetune_step trains them on the way: give "
            "finetune instead of finetune_step, or recover=bn"
        )
