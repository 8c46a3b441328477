"""Runs a network once and follows its channels.

The calls are watched where the network makes them (``TorchFunctionMode``): ``chunk`` and ``split`` are still
apart there, sizes stand as the code wrote them, the names are the same from torch 2.4 on, and a trace costs one
small forward pass. A second watch sits below (``TorchDispatchMode``): an operator that runs without a watched
call around it, as inside an ``autograd.Function``, is an error and never overlooked. So is a value of the network's
input that leaves the tensors (``item``, ``if x.sum() > 0``): the channels of the branch not taken are unknown.

The network is run as for inference and as for training, since a head may read other channels then.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from seqprune.errors import ModelError
from seqprune.graph import outputs
from seqprune.graph.below import OperatorWatch
from seqprune.graph.channels import ChannelGraph
from seqprune.graph.copying import copied
from seqprune.graph.counts import counts_in
from seqprune.graph.given import check_inputs
from seqprune.graph.held import watch_attributes, watch_held
from seqprune.graph.modes import drawing, uncompiled, untold
from seqprune.graph.recorder import Recorder
from seqprune.graph.sizes import STEP, is_image, larger_sizes, other_batch, other_sizes, resized
from seqprune.graph.standins import standin_for, standing_in
from seqprune.graph.unwatched import refuse, wrap_scripted
from seqprune.graph.values import ANY_FAILURE, OPAQUE, Value, cloned, doubled, first_line, leaves, tensors_in
from seqprune.graph.watch import CallWatch

PATIENCE = 3
"""Modules that a trace gives their plain numbers back one by one, before it does so for all."""
LARGEST = 2**27
"""Numbers in a tensor that no pass on other inputs is tried with."""
_HOOK = -1
"""Of the hooks of a trace; torch numbers others from zero."""


def trace(model: nn.Module, example_inputs: torch.Tensor | tuple[Any, ...]) -> ChannelGraph:
    """Follows the channels of a network through one inference and one training pass.

    Args:
        model: any module that runs on ``example_inputs``; it is copied, never changed.
        example_inputs: what the network takes; dimension 1 of each floating-point tensor holds its channels.
            Small images do; a batch of one is doubled for the training pass.

    Raises:
        ModelError: the model cannot be run, its channel counts disagree, or its control flow depends on data.
    """
    inputs = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    refuse(model)
    check_inputs(inputs)
    with drawing(model), untold():
        recorder, notes = _traced_as_it_runs(model, inputs)
    if unrun := _unrun(recorder):
        named = f"{', '.join(unrun[:5])}{' …' * (len(unrun) > 5)}"
        if recorder.sized_by_data:
            raise NotAllRun(
                f"{named} never ran, and which layers run may depend on how much {recorder.sized_by_data} finds: give "
                "an example on which all of them run, a larger batch perhaps, or trace the part before them"
            )
        notes += (f"{len(unrun)} modules with parameters never ran: {named}",)
    shapes = tuple((tuple(t.shape), str(t.dtype).removeprefix("torch.")) for t in tensors_in(inputs))
    graph = recorder.finish(shapes, notes)
    recorder.let_go()
    return graph


def _unrun(recorder: Recorder) -> list[str]:
    """Modules with parameters that neither ran nor, as a list of parameters does not, had theirs read by a call."""
    return [
        path
        for path, module in recorder.modules.items()
        if module._parameters and path not in recorder.ran and not recorder.reads_of(path)
    ]


class NotAllRun(ModelError):
    """Layers did not run on the example, and may on other data."""


class NotRunning(ModelError):
    """The network raised an error.

    Attributes:
        where: module path.
        what: that it raised.
    """

    where = what = ""


def _traced_as_it_runs(model: nn.Module, inputs: tuple[Any, ...]) -> tuple[Recorder, tuple[str, ...]]:
    """A trace with counts, as far as the network runs with them: not all code in C takes them for numbers."""
    unwatched: set[str] = set()
    while len(unwatched) <= PATIENCE:
        try:
            return _traced(model, inputs, eager=False, unwatched=unwatched)
        except NotRunning as error:
            if error.where in unwatched:
                break
            unwatched.add(error.where)
    try:
        return _traced(model, inputs, eager=False, unwatched=None)
    except NotRunning:
        return _traced(model, inputs, eager=True, unwatched=None)


def _traced(
    model: nn.Module, inputs: tuple[Any, ...], eager: bool, unwatched: set[str] | None
) -> tuple[Recorder, tuple[str, ...]]:
    """What was written down, and notes.

    Args:
        model: the network.
        inputs: its arguments.
        eager: whether its code gets plain numbers of channels, which are pinned as soon as they are read.
        unwatched: modules of whose attributes nothing is to be seen; ``None`` for all.
    """
    copy = copied(model).eval().requires_grad_(False)  # what runs with gradients is run, none is kept
    wrap_scripted(copy)
    recorder = Recorder(copy)
    recorder.keep_apart(model)
    recorder.reader.eager = eager
    recorder.constants.possible = all(isinstance(given, torch.Tensor) for given in inputs)
    modules = recorder.modules
    if not eager:
        watch_held(modules, recorder.reader)
    standins = {path: known for path, module in modules.items() if (known := standin_for(module)) is not None}
    if unwatched is not None:
        recorder.watched = watch_attributes(modules, recorder.reader, standins.keys() | unwatched)
    with _paths(recorder), standing_in((modules[path], known) for path, known in standins.items()), uncompiled():
        with torch.no_grad():
            _run(copy, inputs, recorder)
        notes = _run_training(copy, inputs, recorder)
        _run_elsewhere(copy, inputs, recorder)
    return recorder, notes


def _run(model: nn.Module, inputs: tuple[Any, ...], recorder: Recorder) -> None:
    recorder.begin()
    inputs = cloned(inputs)
    for tensor in tensors_in(inputs):
        if tensor.is_floating_point() and tensor.dim() > 1:
            recorder.set_value(tensor, Value(recorder.fixed(tensor.shape[1])))
        else:
            recorder.set_value(tensor, OPAQUE)
    operators = OperatorWatch(recorder)
    try:
        with operators, CallWatch(recorder, operators):
            out = model(*inputs)
    except ModelError:
        raise
    except ANY_FAILURE as error:
        if recorder.refused is not None:
            raise recorder.refused from error
        if recorder.misfit is not None and recorder.misfit[0] is error and recorder.misfit[1] is not None:
            raise recorder.misfit[1] from error
        what = f"{recorder.failed_in or 'the network'} raised {first_line(error)}"
        failed = NotRunning(
            f"the model does not run on inputs of shape {[tuple(t.shape) for t in tensors_in(inputs)]}: {what}; check "
            "the weights and the input size"
        )
        failed.where, failed.what = recorder.failed_in, what
        raise failed from error
    finally:
        recorder.reader.settle()
    if recorder.refused is not None:
        raise recorder.refused
    returned = list(leaves(outputs.read(model, out)))
    for count in counts_in(returned):
        count.use()
    recorder.foreign(returned, "what it returns")
    for tensor in recorder.reaching(tensors_in(returned), "what it returns"):
        atoms = recorder.followed(tensor).atoms
        if atoms is not None:
            recorder.pin(atoms, outputs.OUTPUT)
    del out, returned
    recorder.foreign(recorder.kept(), "a tensor that is kept after a pass")


def _run_training(model: nn.Module, inputs: tuple[Any, ...], recorder: Recorder) -> tuple[str, ...]:
    """The same in training mode, on a batch of two.

    With gradients on: a network may ask ``torch.is_grad_enabled()`` which layers to run.
    """
    model.train()
    note = ""
    for attempt, gradients in enumerate((True, True, True, False)):
        recorder.with_gradients = attempt == 0
        facts = recorder.facts()
        try:
            with torch.set_grad_enabled(gradients):
                _run(model, doubled(inputs), recorder)
            return ()
        except ModelError as error:
            note = f"training mode was not traced: {error}"
            if attempt:
                recorder.stop_watching()
            else:
                recorder.forget(facts)
        finally:
            recorder.with_gradients = False
    return (note,)


def _run_elsewhere(model: nn.Module, inputs: tuple[Any, ...], recorder: Recorder) -> None:
    """Passes on other inputs, where some layers did not run, or a bias is to take up what the example's sides may make.

    In inference; inputs that the network does not take tell nothing.
    """
    if not (_unrun(recorder) or recorder.constants.folds):
        return  # as of most networks, before other inputs are made
    model.eval()
    largest: dict[int, int] = {}
    for number, given in enumerate(_elsewhere(inputs)):
        if not (_unrun(recorder) or (recorder.constants.folds and number < 2)):
            return
        size = sum(tensor.numel() for tensor in tensors_in(given))
        if _expected(largest, size) > LARGEST:
            continue  # attention over all of a large image takes gigabytes
        facts, recorder.largest = recorder.facts(), 0
        try:
            with torch.no_grad():
                _run(model, given, recorder)
        except ModelError:
            recorder.forget(facts)
        largest[size] = recorder.largest


def _expected(largest: dict[int, int], size: int) -> float:
    """Numbers in the largest tensor of a pass on inputs of so many, by what passes on two other sizes had.

    Maps grow as the inputs do, attention as their square.
    """
    if len(largest) < 2:
        return 0.0
    (less, few), (more, many) = min(largest.items()), max(largest.items())
    power = math.log(max(many, 1) / max(few, 1)) / math.log(more / less)
    grown: float = many * (size / more) ** power
    return grown


def _elsewhere(inputs: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    """Another number of inputs, then other sizes of images, a large one with odd sides at the end."""
    yield other_batch(inputs, more=5)
    yield from other_sizes(inputs)
    yield from larger_sizes(inputs, STEP)  # how much a pass takes shows on large maps alone
    sides = next((t.shape[2:] for t in tensors_in(inputs) if is_image(t)), None)
    if sides is not None:
        yield resized(inputs, *(max(2 * side, 128) + 1 for side in sides))


@contextmanager
def _paths(recorder: Recorder) -> Iterator[None]:
    """Keeps the recorder's stack of module paths while the model runs."""
    paths = {module: path for path, module in recorder.modules.items()}

    def enter(module: nn.Module, _a: Any) -> None:
        if module in paths:  # else the network copied one of its modules meanwhile, and these hooks with it
            recorder.enter(paths[module])

    def leave(module: nn.Module, _a: Any, out: Any) -> None:
        if module in paths:
            recorder.leave(paths[module], sys.exc_info()[1] if out is None else None)

    for module in paths:  # of a copy, which no one else registers hooks with: a handle for each takes longer
        module._forward_pre_hooks[_HOOK], module._forward_hooks[_HOOK] = enter, leave
        module._forward_hooks_always_called[_HOOK] = True
    try:
        yield
    finally:
        for module in paths:
            del module._forward_pre_hooks[_HOOK], module._forward_hooks[_HOOK]
            del module._forward_hooks_always_called[_HOOK]
