"""What a caller gives as a network and its data, as the engine takes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import nn

from seqprune.engine.listener import Listener
from seqprune.engine.run import Subject
from seqprune.engine.settings import Choose, Look, Open, Train
from seqprune.engine.state import State
from seqprune.engine.subjects import module_subject
from seqprune.errors import InputError


def is_module(model: object) -> TypeGuard[nn.Module]:
    """Whether a network is none of Ultralytics'."""
    return isinstance(model, nn.Module) and not any(
        kind.__module__.split(".")[0] == "ultralytics" for kind in type(model).__mro__
    )


def check_there(model: Any) -> None:
    """
    Raises:
        ModelError: a file is named that does not exist: said before anything else that is missing.
    """
    if isinstance(model, str | Path):
        from seqprune.yolo.files import load

        load.check_there(model)


def opened(
    model: str | Path | nn.Module | Any,
    data: Any,
    look: Look,
    choose: Choose,
    train: Train,
    how: Open,
    *,
    device: torch.device,
    told: Listener,
    state: State | None = None,
) -> tuple[Subject, Look]:
    """The network, its graph and its task, and what is looked at with the size of the images filled in.

    Raises:
        InputError: weights, data, names or numbers that cannot be used, or what this network cannot be asked for.
    """
    if is_module(model):
        _check_asked(choose, train)
        if look.int8:
            raise InputError("int8 is for Ultralytics' detectors: quantise this network with its runtime's own tool")
        return module_subject(model, data, look, how, choose.seed), look
    from seqprune.yolo.task.subject import yolo_subject
    from seqprune.yolo.train.tuning import check_names

    check_names(train.arguments)
    return yolo_subject(
        model,
        data or "",
        look,
        choose,
        train,
        device=device,
        trust=how.trust,
        classes=how.classes,
        told=told,
        state=state,
    )


def _check_asked(choose: Choose, train: Train) -> None:
    """
    Raises:
        InputError: what only Ultralytics' networks can be asked for.
    """
    if train.epochs + train.step_epochs:
        raise InputError(
            "finetune trains Ultralytics' networks: train this one in a loop of your own, where it keeps its shape; "
            "seqprune.keep_masked keeps the mask of mode=mask"
        )
    if choose.match not in (None, "all"):
        raise InputError(f"match={choose.match!r} asks a detector: leave it out, every labelled object counts")
    if "size" in choose.by:
        raise InputError("by size takes smaller images, which are resized for Ultralytics' networks only: leave it out")


__all__ = ["check_there", "is_module", "opened"]
