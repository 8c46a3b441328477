"""A module and its data as the engine is given them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

from torch import nn

from seqprune.engine.batches import Batches
from seqprune.engine.modules import Evaluate, ModuleTask
from seqprune.engine.outputs import Outputs
from seqprune.engine.record import ClassMeasurements, ModuleMeasurements
from seqprune.engine.run import Subject
from seqprune.engine.settings import Look
from seqprune.errors import InputError
from seqprune.observe.inputs import Inputs


def module_subject(
    model: nn.Module,
    data: Any,
    look: Look,
    *,
    example_inputs: Inputs = None,
    evaluate: Evaluate | None = None,
    outputs: Outputs = "auto",
    fixed: Sequence[str] = (),
    seed: int = 0,
) -> Subject:
    """
    Args:
        model: any module; copied.
        data: a loader, or a dictionary of loaders ``train`` and ``val``; see :data:`seqprune.engine.batches.Loader`.
        look: how many images, and how many at a time.
        example_inputs: what it takes, where there are no data.
        evaluate, outputs, fixed: see :class:`seqprune.engine.modules.ModuleTask`.
        seed: of the sample of images.

    Raises:
        InputError, DataError: data that cannot be used.
        ModelError: the model does not run on them.
    """
    loaders = dict(data) if isinstance(data, Mapping) else {"train": data}
    if strange := set(loaders) - {"train", "val"}:
        raise InputError(f"data has {sorted(strange)[0]!r}: give a loader, or a dictionary with train and val")
    if outputs not in ("auto", "logits", "values"):
        raise InputError(f"outputs={outputs!r} is not known: choose auto, logits or values")
    if loaders.get("train") is None:
        if example_inputs is None:
            raise InputError("there are no data to run the network on: give data, or example_inputs")
        loaders["train"] = [(example_inputs,)]
    images = Batches(loaders["train"], look.batch, look.images, seed)
    validation = Batches(loaders["val"], look.batch) if look.val and loaders.get("val") is not None else None
    copy = deepcopy(model).cpu().eval()
    task = ModuleTask(copy, images, validation, evaluate, outputs, tuple(fixed))
    return Subject(
        copy,
        task.trace(copy),
        task,
        ModuleMeasurements if evaluate is not None else ClassMeasurements,
        source=type(model).__name__,
        data="" if data is None else type(data).__name__,
    )
