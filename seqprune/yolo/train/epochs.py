"""A training that goes on from its last epoch, to the same bits.

Each epoch begins with random numbers of its own, so that none have to be kept; what remains is the network, its
average, the optimizer, gradients that wait for a step, and the images that the mosaic draws from. Bit for bit with
images read in the same process (``workers=0``), on a device that computes the same twice (a CPU), and without
Albumentations, which draws from a generator of its own.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from ultralytics.utils.torch_utils import unwrap_model

from seqprune.engine.state import State
from seqprune.yolo.train.trainer import KeepsShape

NAME = "epochs"
OnEpoch = Callable[[int, int, Mapping[str, float]], None]
"""Told how many epochs are done, of how many, and the mean losses of the last one by name."""
_TEACHER = "teacher_model."


@dataclass(frozen=True)
class Epochs:
    """Where a training keeps itself.

    Attributes:
        state: of the run; without a folder nothing is kept.
        of: what is trained and how: another training begins at its first epoch.
    """

    state: State
    of: str

    def read(self) -> tuple[dict[str, torch.Tensor], Any] | None:
        """What the last epoch left of this training."""
        known = self.state.read_tensors(NAME)
        return known if known is not None and known[1]["of"] == self.of else None

    def write(self, trainer: Any, last_step: int) -> None:
        """Everything that the next epoch needs of those before."""
        model = unwrap_model(trainer.model)
        optimizer = trainer.optimizer.state_dict()
        tensors: dict[str, torch.Tensor] = {f"model:{name}": tensor for name, tensor in _own(model).items()}
        tensors |= {f"ema:{name}": tensor for name, tensor in _own(trainer.ema.ema).items()}
        tensors |= {f"grad:{name}": p.grad for name, p in model.named_parameters() if p.grad is not None}
        numbers: dict[str, Any] = {}
        for index, entry in optimizer["state"].items():
            for name, value in entry.items():
                (tensors if isinstance(value, torch.Tensor) else numbers)[f"optimizer:{index}:{name}"] = value
        about = {
            "of": self.of,
            "epoch": trainer.epoch + 1,
            "updates": trainer.ema.updates,
            "last_step": last_step,
            "groups": optimizer["param_groups"],
            "numbers": numbers,
            "scaler": trainer.scaler.state_dict(),
            "buffer": [int(index) for index in getattr(trainer.train_loader.dataset, "buffer", ())],
        }
        self.state.write_tensors(NAME, tensors, about)


def losses_of(trainer: Any) -> dict[str, float]:
    """Mean losses of a trainer's epoch, ``box 1.21``; later versions of Ultralytics keep them by name."""
    found: Any = trainer.tloss
    if found is None:
        return {}
    if not isinstance(found, dict):
        found = dict(zip(trainer.loss_names, torch.as_tensor(found).reshape(-1).tolist(), strict=False))
    return {str(name).rpartition("/")[2].removesuffix("_loss"): float(value) for name, value in found.items()}


def _own(model: nn.Module) -> dict[str, torch.Tensor]:
    """A network's tensors without its teacher's, which never change."""
    return {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(_TEACHER)}


class KeepsEpochs(KeepsShape):
    """Mixed into a trainer of ours: keeps every epoch, and goes on behind those that were kept."""

    epochs_kept: Epochs | None = None
    on_epoch: OnEpoch | None = None
    _every = 1
    _behind = 0
    _batch = _last_step = -1
    _known: tuple[dict[str, torch.Tensor], Any] | None = None

    @property
    def accumulate(self) -> int:
        """Batches to a step. Ultralytics counts from its own start, which is not this training's."""
        return self._every + self._behind

    @accumulate.setter
    def accumulate(self, value: int) -> None:
        self._every = value

    def _setup_train(self, *args: Any, **kwargs: Any) -> Any:
        """Set up as for the first epoch, then go to where the kept one ended."""
        result = super()._setup_train(*args, **kwargs)
        self._known = None if self.epochs_kept is None else self.epochs_kept.read()
        if self._known is not None:
            self._restore(*self._known)
        return result

    def run_callbacks(self, event: str) -> None:
        """Nobody else is told: the integrations would log to other services."""
        if event == "on_train_epoch_start":
            self._begin_epoch()
        elif event == "on_train_batch_start":
            self._batch += 1
        elif event == "on_train_epoch_end" and self.on_epoch is not None:
            self.on_epoch(self.epoch + 1, self.epochs, losses_of(self))
        elif event == "on_fit_epoch_end" and self.epochs_kept is not None and not self.stop:
            self.epochs_kept.write(self, self._last_step)

    def optimizer_step(self) -> None:
        super().optimizer_step()
        self._behind, self._last_step = 0, self._batch

    def _restore(self, tensors: dict[str, torch.Tensor], about: Any) -> None:
        model: Any = unwrap_model(self.model)
        with torch.no_grad():
            for kind, network in (("model", model), ("ema", self.ema.ema)):
                for name, tensor in _own(network).items():
                    tensor.copy_(tensors[f"{kind}:{name}"])
        self.ema.updates = about["updates"]
        states: dict[int, dict[str, Any]] = {}
        for key, value in (tensors | about["numbers"]).items():
            if key.startswith("optimizer:"):
                _, index, name = key.split(":", 2)
                states.setdefault(int(index), {})[name] = value
        groups = [
            {name: tuple(v) if isinstance(v, list) and name != "params" else v for name, v in group.items()}
            for group in about["groups"]
        ]
        self.optimizer.load_state_dict({"state": states, "param_groups": groups})
        if about["scaler"]:
            self.scaler.load_state_dict(about["scaler"])
        self.start_epoch = about["epoch"]
        if 0 <= self.epochs - self.args.close_mosaic < self.start_epoch:
            self._close_dataloader_mosaic()  # up to 8.4.150 that is done in this one epoch, and in none behind
        self.scheduler.last_epoch = self.start_epoch - 1
        if hasattr(model, "init_criterion"):  # a loss whose weights change from epoch to epoch
            model.criterion = model.init_criterion()
            if hasattr(model.criterion, "update"):
                model.criterion.updates = self.start_epoch - 1
                model.criterion.update()
        dataset = self.train_loader.dataset
        for index in about["buffer"]:
            dataset.load_image(index)

    def _begin_epoch(self) -> None:
        """Random numbers of its own; after a kept epoch also the gradients that wait for a step."""
        seed = int(np.random.SeedSequence([self.args.seed, self.epoch]).generate_state(1)[0])
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - the one that Ultralytics draws from
        torch.manual_seed(seed)
        if getattr(self.train_loader.sampler, "generator", None) is not None:
            self.train_loader.sampler.generator = torch.Generator().manual_seed(seed)
        self._batch = self.epoch * len(self.train_loader) - 1
        if self._known is None:
            return
        tensors, about = self._known
        self._known = None
        self._last_step = about["last_step"]
        self._behind = self._last_step + 1
        for name, parameter in unwrap_model(self.model).named_parameters():
            if (gradient := tensors.get(f"grad:{name}")) is not None:
                parameter.grad = gradient.to(parameter.device)
