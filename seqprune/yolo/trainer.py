"""Training that keeps the shape, and the mask, it was given."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from ultralytics.models.yolo.detect import DetectionTrainer as UltralyticsTrainer
from ultralytics.utils import DEFAULT_CFG, DEFAULT_CFG_DICT
from ultralytics.utils.torch_utils import unwrap_model

from seqprune.errors import InputError, ModelError, TrainingError
from seqprune.yolo.contained import contained, one_line
from seqprune.yolo.dataset import ReadOnlyDataset, build, check_classes, resolve
from seqprune.yolo.device import as_device
from seqprune.yolo.load import forget_inputs, is_fused

Mask = Callable[[nn.Module], None]

_OURS = ("model", "data", "task", "mode", "resume", "pretrained", "project", "name", "exist_ok", "save_dir")


class DetectionTrainer(UltralyticsTrainer):  # type: ignore[misc]
    """Ultralytics' detection trainer that trains the network it is given, not the one its YAML describes.

    ``YOLO("pruned.pt").train(trainer=seqprune.yolo.DetectionTrainer, data=...)`` keeps the pruned shape
    through training, EMA, resuming and the final checkpoints. Labels are read, and no cache is written.

    Args:
        mask: Zeroes the masked channels of a model in place. Called on the model and on its EMA before the
            first step and after every optimizer step, so that they stay exactly zero; bind it with
            ``functools.partial``.
    """

    def __init__(
        self,
        cfg: Any = DEFAULT_CFG,
        overrides: dict[str, Any] | None = None,
        _callbacks: dict[str, Any] | None = None,
        *,
        mask: Mask | None = None,
    ) -> None:
        super().__init__(cfg, overrides, _callbacks)
        self.mask = mask
        if mask is not None and self.ddp:
            raise InputError("a mask cannot follow training into several processes; use one device")

    def get_model(self, cfg: Any = None, weights: nn.Module | None = None, verbose: bool = True) -> nn.Module:
        """A trainable copy of ``weights`` in its own shape; without weights, the network of ``cfg``.

        Raises:
            ModelError: The weights have another number of classes than the data, or were fused.
            InputError: ``pretrained`` asks for other weights than the model's.
        """
        pretrained = self.args.pretrained
        discards = pretrained is False and str(self.args.model).endswith(".pt")
        if not self.resume and (discards or isinstance(pretrained, str | Path)):
            raise InputError(f"pretrained={pretrained} would replace the pruned network; leave it out")
        if weights is None:
            built: nn.Module = super().get_model(cfg, None, verbose)
            return built
        with torch.inference_mode(False):
            model = deepcopy(weights).float()
        if is_fused(model):
            raise ModelError(
                "the model's BatchNorm layers were fused away by a prediction; load it afresh from its file"
            )
        names: Any = model.names
        check_classes(self.data, len(names), str(self.args.data))
        forget_inputs(model)
        for name, parameter in model.named_parameters():
            parameter.requires_grad = ".dfl" not in name  # as Ultralytics trains: all but the fixed bins
        return model

    def build_dataset(self, img_path: str, mode: str = "train", batch: int | None = None) -> ReadOnlyDataset:
        """The split's images and labels, read only."""
        stride = max(int(unwrap_model(self.model).stride.max()), 32)
        return build(self.args, img_path, batch, self.data, mode=mode, rect=mode == "val", stride=stride)

    def _setup_train(self, *args: Any, **kwargs: Any) -> Any:
        """Set up as Ultralytics does, then mask."""
        result = super()._setup_train(*args, **kwargs)
        self.apply_mask()
        return result

    def optimizer_step(self) -> None:
        """Step as Ultralytics does, then mask: BatchNorm's bias has a gradient where all else is zero."""
        super().optimizer_step()
        self.apply_mask()

    def apply_mask(self) -> None:
        """Zero the masked channels of the model and of its EMA."""
        if self.mask is None:
            return
        with torch.no_grad():
            self.mask(unwrap_model(self.model))
            if self.ema:
                self.mask(self.ema.ema)


class _QuietTrainer(DetectionTrainer):
    """The same, leaving nothing behind: no checkpoints, no curves, no validation, nobody called back."""

    def get_dataset(self) -> dict[str, Any]:
        return resolve(self.args.data)

    def run_callbacks(self, event: str) -> None:
        """Nobody is told: the integrations would log to other services."""

    def validate(self) -> tuple[dict[str, float], None]:
        return {}, None

    def save_model(self) -> bool:
        return False

    def save_metrics(self, metrics: dict[str, float]) -> None:
        """No table is kept."""

    def final_eval(self) -> None:
        """Nothing was saved that could be evaluated."""


def finetune(
    model: nn.Module,
    data: str | Path,
    *,
    epochs: int,
    imgsz: int = 640,
    batch: int = 16,
    device: str | torch.device = "cpu",
    seed: int = 0,
    lr0: float | None = None,
    mask: Mask | None = None,
    **overrides: Any,
) -> nn.Module:
    """Fine-tune a detector in the shape it has, with Ultralytics' losses, augmentation and schedule.

    Runs in a temporary folder that is removed; no plots, no checkpoints, no mixed precision, no loader
    processes, unless ``overrides`` say otherwise. The caller's random state is put back.

    Args:
        model: The detector; it is copied, not changed.
        data: Path of a data YAML, or a name that Ultralytics knows; trains on its ``train`` split.
        epochs: Passes over the images.
        imgsz: Side of the training images in pixels.
        batch: Images per step.
        device: One device.
        seed: Seed of augmentation and order.
        lr0: Initial learning rate, of AdamW unless ``overrides`` name an optimizer; None lets Ultralytics
            choose both.
        mask: Zeroes the masked channels of a model in place; see :class:`DetectionTrainer`.
        **overrides: Further training arguments of Ultralytics'.

    Returns:
        The averaged (EMA) weights after the last step, never rounded to half precision: float32, on the CPU,
        in eval mode, ``requires_grad`` as in ``model``, named by the data.

    Raises:
        InputError: An argument is impossible, or the data or the model cannot be used.
        TrainingError: Training failed, diverged, or changed the shape or woke a masked channel.
    """
    arguments = _arguments(epochs, imgsz, batch, device, seed, lr0, overrides)
    description = resolve(data)
    with tempfile.TemporaryDirectory(prefix="seqprune-") as folder, contained(), _random_state():
        arguments |= {"data": str(description.get("yaml_file", data)), "project": folder, "name": "run"}
        try:
            trainer = _QuietTrainer(overrides=arguments, mask=mask)
        except (SyntaxError, TypeError, ValueError) as error:
            raise InputError(f"training arguments: {one_line(error)}") from error
        trainer.model = trainer.get_model(weights=model)
        try:
            trainer.train()
        except (RuntimeError, ValueError) as error:
            raise TrainingError(f"training failed: {one_line(error)}") from error
        trained: nn.Module = trainer.ema.ema
    return _checked(model, trained, mask)


def _arguments(
    epochs: int,
    imgsz: int,
    batch: int,
    device: str | torch.device,
    seed: int,
    lr0: float | None,
    overrides: dict[str, Any],
) -> dict[str, Any]:
    """Ultralytics' training arguments."""
    for name, value in (("epochs", epochs), ("imgsz", imgsz), ("batch", batch)):
        if value < 1:
            raise InputError(f"{name}={value} must be at least 1")
    for name in overrides:
        if name in _OURS:
            raise InputError(f"{name} is not a choice when fine-tuning: it is given by the model and the data")
        if name not in DEFAULT_CFG_DICT:
            raise InputError(f"{name} is no training argument of this version of Ultralytics; check its spelling")
    arguments: dict[str, Any] = {
        "task": "detect",
        "mode": "train",
        "model": "model.pt",  # a name only: the model is handed over
        "epochs": epochs,
        "imgsz": imgsz,
        "batch": batch,
        "device": as_device(device),
        "seed": seed,
        "exist_ok": True,
        "plots": False,
        "save": False,
        "val": False,
        "verbose": False,
        "workers": 0,
        "amp": False,  # with it, Ultralytics downloads a model to try mixed precision on
    }
    if lr0 is not None:  # optimizer=auto ignores the learning rate
        arguments |= {"optimizer": "AdamW", "momentum": 0.9, "warmup_bias_lr": 0.0, "lr0": lr0}
    return arguments | overrides


def _checked(model: nn.Module, trained: nn.Module, mask: Mask | None) -> nn.Module:
    """Finish a trained model and compare it with the one that was given."""
    result: Any = trained.float().cpu().to(memory_format=torch.contiguous_format).eval()
    forget_inputs(result)
    result.args = deepcopy(getattr(model, "args", {}))
    before = {name: tensor.shape for name, tensor in model.state_dict().items()}
    after: dict[str, torch.Tensor] = result.state_dict()
    if changed := sorted(set(before.items()) ^ {(name, tensor.shape) for name, tensor in after.items()}):
        raise TrainingError(f"training changed the shape of {changed[0][0]}; this is a bug, please report it")
    if broken := [name for name, tensor in after.items() if not tensor.isfinite().all()]:
        raise TrainingError(f"training diverged: {broken[0]} is not finite; use a smaller lr0")
    if mask is not None:
        masked = deepcopy(result)
        with torch.no_grad():
            mask(masked)
        for name, tensor in masked.state_dict().items():
            if not torch.equal(tensor, after[name]):
                raise TrainingError(f"training woke masked channels of {name}; this is a bug, please report it")
    wanted = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    for name, parameter in result.named_parameters():
        parameter.requires_grad = wanted[name]
    return cast(nn.Module, result)


@contextmanager
def _random_state() -> Iterator[None]:
    """Put the random generators back afterwards: Ultralytics seeds them all."""
    plain, array = random.getstate(), np.random.get_state()  # noqa: NPY002 - the one that Ultralytics seeds
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(plain)
            np.random.set_state(array)  # noqa: NPY002
