"""A module and its data as the engine is given them."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from torch import nn

from seqprune.engine.batches import Batches
from seqprune.engine.modules import ModuleTask
from seqprune.engine.record import ClassMeasurements, ModuleMeasurements
from seqprune.engine.settings import Look, Open
from seqprune.engine.subject import Subject
from seqprune.errors import InputError
from seqprune.observe.device import as_device


def module_subject(model: nn.Module, data: Any, look: Look, how: Open, seed: int = 0) -> Subject:
    """
    Args:
        model: any module; copied.
        data: a loader, or a dictionary of loaders ``train`` and ``val``; see :data:`seqprune.engine.batches.Loader`.
        look: how many images, and how many at a time.
        how: what the network takes and returns, and how its accuracy is measured.
        seed: of the sample of images.

    Raises:
        InputError, DataError: data that cannot be used.
        ModelError: the model does not run on them.
    """
    loaders = dict(data) if isinstance(data, Mapping) else {"train": data}
    if strange := set(loaders) - {"train", "val"}:
        raise InputError(f"data has {sorted(strange)[0]!r}: give a loader, or a dictionary with train and val")
    if loaders.get("train") is None:
        if how.example_inputs is None:
            raise InputError("there are no data to run the network on: give data, or example_inputs")
        loaders["train"] = [(how.example_inputs,)]
    images = Batches(loaders["train"], look.batch, look.images, seed)
    validation = Batches(loaders["val"], look.batch) if look.val and loaders.get("val") is not None else None
    copy = deepcopy(model).cpu().eval()
    task = ModuleTask(
        copy,
        images,
        validation,
        how.evaluate,
        how.outputs,
        tuple(how.fixed),
        device=as_device(str(look.device)),
    )
    return Subject(
        copy,
        task.trace(copy),
        task,
        ModuleMeasurements if how.evaluate is not None else ClassMeasurements,
        source=type(model).__name__,
        data="" if data is None else type(data).__name__,
    )
