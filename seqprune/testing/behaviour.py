"""Contracts about values: what the pruned network computes, in the forms in which it runs elsewhere."""

from __future__ import annotations

import io

import numpy as np
import torch
from torch import nn

from seqprune.graph import proof
from seqprune.graph.copying import copied
from seqprune.graph.values import first_line
from seqprune.surgery import TOLERANCE
from seqprune.testing import references
from seqprune.testing.outputs import Tensors, difference, run, scripted
from seqprune.testing.trial import FAILS, ContractError, Inputs, NotApplicable, Trial, attempt

EXPORTED = 1e-3
"""Relative difference that another runtime may bring, in float32."""
FUSED = 1e-6
"""And folding BatchNorm into a convolution, in float64; that of float32 is EXPORTED."""


def runs(trial: Trial) -> None:
    """The pruned network runs on the inputs, and gives tensors of the shapes that the unpruned one gives."""
    found = attempt("runs", "the pruned network fails", lambda: run(trial.pruned, trial.inputs))
    shapes = [[list(t.shape) for t in outputs] for outputs in (found, trial.expected)]
    if shapes[0] != shapes[1]:
        raise ContractError("runs", f"it gives tensors of {shapes[0]}, the unpruned network {shapes[1]}")


def values(trial: Trial) -> None:
    """It computes what the unpruned network computes with the removed channels at zero, on every input."""
    _same("values", trial, trial.expected, trial.pruned)
    _same("values", trial, references.other_outputs(trial), trial.pruned, inputs=references.other(trial.inputs))


def alone(trial: Trial) -> None:
    """Every prunable layer can be pruned alone: it runs, and its values are right."""
    sets = references.layers(trial)
    if not sets:
        raise NotApplicable("no layer of this network can be pruned alone")
    for each in sets:
        _right("alone", trial, each)


def orders(trial: Trial) -> None:
    """Random sets of layers, named in random orders, front to back or not: the order changes nothing."""
    sets = references.shuffled(trial)
    if not sets:
        raise NotApplicable("no set of layers of this network can be pruned")
    for each in sets:
        _right("orders", trial, each)


def training(trial: Trial) -> None:
    """After a step of training every tensor has the shape it had, and no channel that was gone is back."""
    if (failed := _stepped(copied(trial.unpruned), trial.inputs)) is not None:
        raise NotApplicable(f"the unpruned network does not train on the inputs ({first_line(failed)})")
    model = copied(trial.pruned)
    before = {name: tensor.shape for name, tensor in model.state_dict().items()}
    dead = _dead(trial, model)
    if (failed := _stepped(model, trial.inputs)) is not None:
        raise ContractError("training", f"a step of training fails: {first_line(failed)}") from failed
    for name, tensor in model.state_dict().items():
        if tensor.shape != before[name]:
            raise ContractError("training", f"{name} is {list(tensor.shape)}, it was {list(before[name])}")
        if not tensor.isfinite().all():
            raise ContractError("training", f"{name} is not finite after one step")
    if woken := dead - _dead(trial, model):
        name, channel = min(woken)
        raise ContractError(
            "training", f"{len(woken)} channels that were gone are back after one step, channel {channel} of {name}"
        )


def saving(trial: Trial) -> None:
    """Saved and loaded, whole and as tensors by name, it computes the same to the bit."""
    held = io.BytesIO()
    attempt("saving", "it cannot be pickled", lambda: torch.save(trial.pruned, held))
    held.seek(0)
    loaded = attempt("saving", "it does not load", lambda: torch.load(held, weights_only=False))
    tensors = copied(trial.pruned)
    attempt("saving", "its tensors do not load", lambda: tensors.load_state_dict(trial.pruned.state_dict()))
    expected = run(trial.pruned, trial.inputs)
    for again in (loaded, tensors):
        found = difference(expected, run(again, trial.inputs))
        if found:
            raise ContractError("saving", f"what was loaded differs by {found:.2e} of the largest value")


def fusing(trial: Trial) -> None:
    """Its own ``fuse``, where it has one, changes nothing but rounding."""
    expected = references.fused_outputs(trial)
    if expected is None:
        raise NotApplicable("the network has no fuse()")
    fused = attempt("fusing", "fuse() fails", lambda: proof.fused(copied(trial.pruned)))
    if fused is None:
        raise ContractError("fusing", "the pruned network has no fuse(), the unpruned one has")
    _same("fusing", trial, expected, fused.eval(), limit=FUSED)


def exporting(trial: Trial) -> None:
    """As TorchScript, which other runtimes are exported from or beside, it gives what it gives."""
    if failed := references.not_exported(trial):
        raise NotApplicable(f"the unpruned network is not exported ({failed})")
    exported = attempt("exporting", "it cannot be exported", lambda: scripted(trial.pruned, trial.inputs))
    _same("exporting", trial, trial.expected, exported, limit=FUSED)


def _right(contract: str, trial: Trial, asked: references.Asked) -> None:
    """
    Raises:
        ContractError: what the pruner gives for the set does not compute what it should.
    """
    pruned = attempt(contract, asked.name, lambda: trial.asked(asked.keep))
    _same(contract, trial, asked.expected, pruned, f"{asked.name}: ")


def _same(
    contract: str,
    trial: Trial,
    expected: Tensors,
    pruned: nn.Module,
    where: str = "",
    limit: float | None = None,
    inputs: Inputs | None = None,
) -> None:
    """
    Raises:
        ContractError: outputs differ by more than rounding brings, or the pruned network does not run.
    """
    kind = next((p.dtype for p in trial.unpruned.parameters() if p.dtype in TOLERANCE), torch.float32)
    allowed = max(limit or 0.0, TOLERANCE[kind])
    found = attempt(contract, f"{where}it fails", lambda: run(pruned, trial.inputs if inputs is None else inputs))
    far = difference(expected, found)
    if not far <= allowed:
        raise ContractError(
            contract,
            f"{where}outputs differ by {far:.2e} of the largest value from those of the network with these channels at "
            f"zero, {allowed:.0e} is allowed; {_sample(expected, found)}",
        )


def _sample(expected: Tensors, found: Tensors) -> str:
    """The value that is furthest off, as both networks have it."""
    worst, said = -1.0, "shapes differ"
    for number, (a, b) in enumerate(zip(expected, found, strict=False)):
        if a.shape == b.shape and a.numel():
            apart = (a - b).abs().nan_to_num(torch.inf).flatten()
            place = int(apart.argmax())
            if float(apart[place]) > worst:
                worst = float(apart[place])
                said = f"output {number} has {b.flatten()[place]:.6g} for {a.flatten()[place]:.6g}"
    return said


def _stepped(model: nn.Module, inputs: Inputs) -> BaseException | None:
    """One step of plain gradient descent, in place, on the sum of the squares of all outputs; the error, if any."""
    model.train()
    trained = [p.requires_grad_() for p in model.parameters() if p.is_floating_point()]
    optimizer = torch.optim.SGD(trained, lr=1e-4)
    given = tuple(torch.cat([t, t.flip(-1)]) for t in inputs)
    try:
        found = [t for t in proof._tensors(model(*given)) if t.requires_grad]
        torch.stack([t.square().mean() for t in found]).sum().backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
    except FAILS as error:
        return error
    finally:
        model.eval()
    return None


def _dead(trial: Trial, model: nn.Module) -> set[tuple[str, int]]:
    """Channels that are there and do nothing: their weights, biases and what their BatchNorm adds are zero."""
    removed = trial.plan.removed_groups(trial.graph)
    alive: set[tuple[str, int]] = set()
    there: set[tuple[str, int]] = set()
    home = {int(g): (layer.name, c) for layer in trial.graph.all_layers for c, g in enumerate(layer.groups)}
    for cut in trial.graph.slices:
        if cut.dead is None or cut.groups.ndim != 1 or cut.tensor in ("running_mean", "running_var"):
            continue
        try:
            tensor = getattr(model.get_submodule(cut.module), cut.tensor)
        except AttributeError:
            continue
        if tensor.shape[cut.dim] != len(cut.groups):
            continue
        rows = tensor.detach().movedim(cut.dim, 0).flatten(1) if tensor.dim() > 1 else tensor.detach()[:, None]
        for position in np.flatnonzero(removed[cut.groups]).tolist():
            key = home.get(int(cut.groups[position]))
            if key is not None:
                there.add(key)
                if rows[position].ne(cut.dead).any():
                    alive.add(key)
    return there - alive


__all__ = ["alone", "exporting", "fusing", "orders", "runs", "saving", "training", "values"]
