"""One run: look, choose, repair, prove, train, measure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import nn

from seqprune.engine.along import Along
from seqprune.engine.ending import End
from seqprune.engine.engine import Chosen, Engine, streams_for
from seqprune.engine.listener import Listener
from seqprune.engine.measuring import Outcome, finished, measured, size_of
from seqprune.engine.moves import Decided, decide
from seqprune.engine.portrait import circumstances, portrait
from seqprune.engine.presets import Way
from seqprune.engine.record import Record, Size, versions
from seqprune.engine.sequential import front_to_back
from seqprune.engine.settings import Choose, Look, Train
from seqprune.engine.state import State, give
from seqprune.engine.stopwatch import Stopwatch
from seqprune.engine.subject import Subject
from seqprune.engine.task import Task
from seqprune.errors import InputError
from seqprune.graph import ChannelGraph
from seqprune.graph.copying import copied
from seqprune.graph.values import tensors_in
from seqprune.observe.forward import Forward
from seqprune.observe.ranks import ALONE, Ranks
from seqprune.plan import PrunePlan
from seqprune.select.layers import block_of, choose_layers
from seqprune.surgery import Difference, compact

LAYERS, BLOCKS = 3, (1, 2, 3, 4, 5)
"""What preset ``activation`` chooses: so many layers of these top-level modules."""
Tune = Callable[[nn.Module, PrunePlan, int], nn.Module]
"""Given a pruned network, what was pruned, and epochs, the trained one."""


def run(
    subject: Subject,
    look: Look,
    choose: Choose,
    train: Train,
    *,
    device: torch.device,
    tune: Tune = lambda model, _plan, _epochs: model,
    ranks: Ranks = ALONE,
    told: Listener | None = None,
    state: State | None = None,
    on_pruned: Callable[[nn.Module, PrunePlan], None] = lambda _model, _plan: None,
    folder: Path | None = None,
) -> Outcome:
    """Prunes a network as it is asked to, and proves it.

    Args:
        subject: what is pruned.
        look, choose, train: what is asked for.
        device: where images are looked at.
        tune: trains; a failure of it is the caller's to keep.
        ranks: the processes that share the images.
        told: what is going on.
        state: what was found so far; the run goes on from there.
        on_pruned: given the pruned network before it is measured.
        folder: where files beside the weights go.

    Raises:
        InputError: names or numbers that cannot be used, or nothing could be pruned.
        VerificationError: compact and masked model differ.
        MeasurementError: what was pruned cannot be measured; its ``result`` holds the outcome without that.
    """
    told, state = told or Listener(), state or State()
    task, size, way = subject.left or (subject.task, None, choose.way)
    names = _names(subject, choose)
    state.same("network", fingerprint(subject.model), "the network")
    state.same("images", task.images.fingerprint(), "the images")
    accuracy = bool(look.val and subject.data and not ranks.rank)
    before, of_classes = measured(subject.kind, subject.task, subject.model, accuracy, "before", told, state)
    streams = streams_for(task, subject.model, look.cache_bytes, look.cache_half, told.warning)
    there = copied(subject.model).to(device)
    watch = Stopwatch(look.where, task, state) if way.by_time else None
    engine = Engine(there, subject.graph, task, streams, Forward(look.amp, told.warning), told, state, ranks, watch)
    along = Along(task, told, state, before.has_accuracy, look.val_steps or train.step_epochs > 0)
    decided, repairs = _pruned(engine, way, names, choose, train, tune, along)
    chosen = replace(decided.chosen, plan=replace(decided.chosen.plan, imgsz=size))
    masked = chosen.masked.cpu()
    small = compact(masked, chosen.plan, decided.engine.graph)
    proof = task.prove(masked, small, next(iter(task.images)).input(small, slice(2)))
    pruned = _trained(small if choose.mode == "compact" else masked, chosen.plan, train.epochs, tune, along)
    on_pruned(pruned, chosen.plan)
    record = replace(
        _record(subject, task, (look, choose, train), chosen, proof, small),
        repairs=repairs,
        along=along.points(),
        before=replace(before, file_bytes=task.file_bytes(subject.model, None)),
        after=replace(size_of(subject.kind, task, pruned, {}), file_bytes=task.file_bytes(pruned, chosen.plan)),
    )
    end = End(subject, task, look, choose.way, size, folder, told)
    return finished(Outcome(pruned, chosen.plan, record), end, of_classes, ranks)


def _names(subject: Subject, choose: Choose) -> list[str]:
    """The layers that preset ``activation`` looks at, front to back; none where the whole network is pruned.

    Raises:
        InputError: there are no classes to tell apart, or no such layers.
    """
    if choose.way.target is not None:
        return []
    if subject.task.classes == 1:
        raise InputError(
            f"{subject.source} has one class, and preset activation keeps the channels that tell classes apart: prune "
            "it with preset accurate (--preset accurate), which needs no classes"
        )
    return layers_for(subject.graph, choose.layers, choose.blocks)


def _record(
    subject: Subject,
    task: Task,
    asked: tuple[Look, Choose, Train],
    chosen: Chosen,
    proof: tuple[Difference, str],
    small: nn.Module,
) -> Record:
    """What is known before the pruned network is measured; both sizes are still nought."""
    look, choose, train = asked
    examples = subject.task.example(subject.model), task.example(small)
    known = {"verified_as": proof[1], "size": chosen.plan.imgsz or look.imgsz}
    return Record(
        model=subject.source,
        data=subject.data,
        preset=choose.preset,
        seed=choose.seed,
        mode=choose.mode,
        finetune=train.epochs,
        settings=_settings(look, choose, train, task, bool(subject.data)) | known,
        versions=versions(),
        steps=chosen.steps,
        verify=proof[0],
        before=Size(0, 0.0),
        after=Size(0, 0.0),
        unreadable=tuple(task.images.unreadable),
        network=portrait(subject.graph, subject.model, small, chosen.plan, examples),
        made=circumstances(),
        names=dict(task.names),
    )


def _pruned(
    engine: Engine, way: Way, names: Sequence[str], choose: Choose, train: Train, tune: Tune, along: Along
) -> tuple[Decided, tuple[Any, ...]]:
    """What was chosen, its masked network repaired, and what became of the repairs."""
    relevance = engine.weigh_errors() if way.weighs_errors else None
    if way.target is None:
        after_step = (lambda now, so_far: tune(now, so_far, train.step_epochs)) if train.step_epochs else None
        how: dict[str, Any] = {"after_step": after_step, "ranks": engine.ranks, "along": along}
        chosen = engine.front_to_back(names, engine.task.classes, choose.settings, **how)
        if not chosen.plan.layers:
            first = next(iter(chosen.steps), None)
            why = "none was named" if first is None else f"{first.layer}: {first.reason or 'all of its channels stay'}"
            raise InputError(f"no layer could be pruned; {why}; or prune with preset accurate, which needs no classes")
        decided = Decided(engine, chosen, relevance)
    else:
        decided = decide(
            engine,
            way,
            round_to=choose.settings.round_to,
            protect=choose.protect,
            seed=choose.seed,
            relevance=relevance,
        )
    masked, repairs = decided.engine.repair(decided.chosen, way.recover, decided.relevance)
    engine.close()
    return replace(decided, chosen=replace(decided.chosen, masked=masked)), repairs


def _trained(model: nn.Module, plan: PrunePlan, epochs: int, tune: Tune, along: Along) -> nn.Module:
    """The model, trained now or before."""
    state = along.state
    known = state.read_tensors("trained") if epochs else None
    if known is not None:
        give(model, known[0])
        return model
    if epochs:
        along.after("pruning", model)
    trained = tune(model, plan, epochs)
    if trained is not model:
        state.write_tensors("trained", trained.state_dict())
    return trained


def fingerprint(model: nn.Module) -> str:
    """Of a network's tensors: the same for the same bits."""
    found = sha256()
    for name, held in sorted(model.state_dict().items()):
        for tensor in tensors_in(held):  # of a layer in eight bits, a pair
            numbers = tensor.int_repr() if tensor.is_quantized else tensor
            found.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            found.update(numbers.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _settings(look: Look, choose: Choose, train: Train, task: Task, has_data: bool) -> dict[str, Any]:
    """As the report says them."""
    way, settings = choose.way, choose.settings
    return (
        (asdict(settings) if way.target is None else {"round_to": settings.round_to, "seed": settings.seed})
        | {"imgsz": look.imgsz, "batch": look.batch, "images": task.images.image_count, "device": str(look.device)}
        | {"finetune_step": train.step_epochs, "distill": train.distill, "target": choose.target}
        | {"recover": way.recover, "protect": list(choose.protect), "criterion": way.criterion, "by": list(way.by)}
        | {"verified_on": "images" if has_data else "noise"}
    )


def layers_for(graph: ChannelGraph, layers: int | Sequence[str] | None, blocks: Iterable[int] | None) -> list[str]:
    """Layers front to back: those named, or as many as asked for from ``blocks``.

    Raises:
        InputError: there is no such block.
        PlanError: there is no such layer, or it cannot be pruned.
    """
    layers = LAYERS if layers is None else layers
    if not isinstance(layers, int):
        return front_to_back(graph, layers)
    last = max((block for entry in graph.all_layers if (block := block_of(entry.name)) is not None), default=0)
    blocks = BLOCKS if blocks is None else tuple(blocks)
    if strange := [b for b in blocks if not 0 <= b <= last]:
        raise InputError(f"the model has no block {strange[0]}: its blocks are 0 to {last}")
    candidates = [(e.name, e.channels) for e in graph.layers if e.kind == "Conv2d"]
    return choose_layers(candidates, blocks, layers)


__all__ = ["layers_for", "run"]
