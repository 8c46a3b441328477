"""What a caller gives as a network and its data, as the engine takes them."""

from __future__ import annotations

from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import nn

from seqprune.engine.listener import Listener
from seqprune.engine.modules import ModuleTask
from seqprune.engine.outputs import found
from seqprune.engine.record import ClassMeasurements, ModuleMeasurements
from seqprune.engine.settings import Choose, Look, Open, Train
from seqprune.engine.state import State
from seqprune.engine.subject import Subject
from seqprune.engine.subjects import module_subject
from seqprune.errors import InputError
from seqprune.graph.copying import copied
from seqprune.observe.device import as_device
from seqprune.observe.inputs import call
from seqprune.sources.factories import FAILS, built, called, is_factory
from seqprune.sources.shown import Shown, of_timm


def is_module(model: object) -> TypeGuard[nn.Module]:
    """Whether a network is none of Ultralytics'."""
    return isinstance(model, nn.Module) and not any(
        kind.__module__.split(".")[0] == "ultralytics" for kind in type(model).__mro__
    )


def is_ultralytics(model: object) -> bool:
    """Whether a caller means a network of Ultralytics': a file, a ``YOLO`` or a module of one."""
    return not is_module(model) and not is_factory(model)


def check_there(model: object) -> None:
    """
    Raises:
        InputError: it is none of what names, builds or is a network.
        ModelError: a file is named that does not exist: said before anything else that is missing.
    """
    if not isinstance(model, str | PathLike | nn.Module):
        raise InputError(
            f"the network is a {type(model).__name__}: give weights, a YOLO, a torch.nn.Module, or the name of what "
            "builds one, such as timm:resnet18"
        )
    if isinstance(model, str | Path) and not is_factory(model):
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
    check_there(model)
    if not is_ultralytics(model):
        _check_asked(choose, train)
        if look.int8:
            raise InputError("int8 is for Ultralytics' detectors: quantise this network with its runtime's own tool")
        return _of_anybody(model, data, look, choose, how, told)
    if (how.weights, how.mean, how.std) != (None,) * 3:
        raise InputError("weights, mean and std are for networks by the name of what builds them, such as timm:NAME")
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


def _of_anybody(model: Any, data: Any, look: Look, choose: Choose, how: Open, told: Listener) -> tuple[Subject, Look]:
    """A module, or one that is built, with a loader or a folder of images."""
    if how.classes is not None:
        raise InputError("classes cuts the heads of Ultralytics' networks down: leave it out")
    network, shown, name = _network(model, how, choose.seed)
    if any(parameter.is_meta for parameter in network.parameters()):
        raise InputError("the network lies on the meta device, without weights: give it its weights first")
    if isinstance(data, str) and is_factory(data) and not Path(data).exists():
        data = called(data, how.trust)
    shown = shown.but(look.imgsz, how.mean, how.std)
    if isinstance(data, str | Path) and str(data):
        return _with_folder(network, name, data, shown, replace(look, imgsz=shown.imgsz), choose, how, told)
    if not is_module(model) and data in (None, "") and how.example_inputs is None:
        draw = torch.Generator().manual_seed(choose.seed)
        noise = torch.rand(2, shown.channels, shown.imgsz, shown.imgsz, generator=draw)
        how, look = replace(how, example_inputs=noise), replace(look, imgsz=shown.imgsz)
    subject = module_subject(network, None if isinstance(data, str) else data, look, how, choose.seed)
    return replace(subject, source=name), look


def _network(model: Any, how: Open, seed: int) -> tuple[nn.Module, Shown, str]:
    """The network, how images are shown to it, and what it is called.

    Raises:
        InputError: it cannot be built, or the weights are not its.
    """
    if is_module(model):
        if how.weights is not None:
            raise InputError("weights are for a network by the name of what builds it: give this one its weights")
        return model, of_timm(model), type(model).__name__
    from seqprune.sources.weights import give_weights

    network, shown = built(model, trust=how.trust, seed=seed)
    return network if how.weights is None else give_weights(network, how.weights), shown, model


def _with_folder(
    network: nn.Module,
    name: str,
    data: str | Path,
    shown: Shown,
    look: Look,
    choose: Choose,
    how: Open,
    told: Listener,
) -> tuple[Subject, Look]:
    """
    Raises:
        DataError: the images cannot be used.
    """
    from seqprune.sources.folders import FolderImages, found_in, labelled

    splits = found_in(data)
    copy = copied(network).cpu().eval()
    labels = labelled(splits.values(), _classes(copy, shown))
    if not labels.ids:
        told.warning(f"{data}: {labels.note}; accuracy is not measured")
    elif labels.note:
        told.note(f"{data}: {labels.note}")
    images = FolderImages(splits["train"], labels, shown, look.batch, look.images, choose.seed)
    validation = None
    if look.val and labels.ids:
        if "val" not in splits:
            told.warning(f"{data}: has no val: accuracy is measured on what is looked at, good to try and not to judge")
        validation = FolderImages(splits.get("val", splits["train"]), labels, shown, look.batch, seed=choose.seed)
    for seen in (images, *([] if validation is None else [validation])):
        if seen.unreadable:
            told.warning(f"left out as unreadable, {len(seen.unreadable)}: {', '.join(seen.unreadable[:5])}")
    task = ModuleTask(
        *(copy, images, validation, how.evaluate, how.outputs, tuple(how.fixed), labels.names),
        device=as_device(str(look.device)),
    )
    kind = ModuleMeasurements if how.evaluate is not None else ClassMeasurements
    return Subject(copy, task.trace(copy), task, kind, name, str(data)), look


def _classes(network: nn.Module, shown: Shown) -> int | None:
    """How many classes a network knows; ``None`` where its first output are no logits of one image.

    Raises:
        InputError: it does not take such images.
    """
    image = torch.zeros(1, shown.channels, shown.imgsz, shown.imgsz)
    try:
        with torch.no_grad():
            outputs = found(call(network, image))
    except FAILS as error:
        raise InputError(
            f"the network does not take images of {list(image.shape)} ({' '.join(str(error).split())[:200]}): give "
            "another imgsz, or data=package.module:function, which gives what it takes"
        ) from error
    return outputs[0].shape[1] if outputs and outputs[0].dim() == 2 and outputs[0].shape[1] > 1 else None


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
    if "size" in choose.way.by:
        raise InputError("by size takes smaller images, which are resized for Ultralytics' networks only: leave it out")


__all__ = ["check_there", "is_module", "is_ultralytics", "opened"]
