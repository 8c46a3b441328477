"""Ways of pruning to a target without training, by name: criteria, the seed engine, Torch-Pruning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from torch import nn

from seqprune.budget.cost import parameters
from seqprune.budget.criteria import CRITERIA, FloatArray, Scoring, scores
from seqprune.budget.price import Price
from seqprune.budget.spread import Spread
from seqprune.budget.target import Target
from seqprune.engine.engine import Engine, streams_for
from seqprune.engine.fast import fast_plan
from seqprune.engine.moves import decide
from seqprune.engine.presets import BY, CHANNELS, ROUND_TO, Way
from seqprune.engine.steps import Match, Settings
from seqprune.engine.task import Task
from seqprune.errors import InputError, SeqPruneError
from seqprune.graph.channels import BoolArray, Bundle, ChannelGraph
from seqprune.graph.copying import copied
from seqprune.measure.peers import PEERS, peer
from seqprune.plan import PrunePlan
from seqprune.repair.recover import Recover
from seqprune.surgery import compact
from seqprune.yolo.task.profile import gflops
from seqprune.yolo.task.tracing import padded

Method = Callable[[nn.Module, ChannelGraph, Target, Task, int], nn.Module]
"""Given a network, its graph, what stays, its task with images to look at and a seed, the pruned network: a
new one, smaller, in inference mode; the one it was given stays as it is."""
IMGSZ = "imgsz"
"""The method that leaves the network as it is and takes smaller images."""
FAR = 0.05
"""Of a target: so much more is not equal any more."""


def by_criterion(
    name: str,
    model: nn.Module,
    graph: ChannelGraph,
    target: Target,
    task: Task,
    seed: int,
    *,
    spread: Spread = "uniform",
) -> nn.Module:
    """Plain top-k by a criterion."""
    plan = fast_plan(model, graph, task, target, name, spread=spread, seed=seed)
    return compact(model, plan, graph)


def by_clusters(
    model: nn.Module,
    graph: ChannelGraph,
    target: Target,
    task: Task,
    seed: int,
    *,
    match: Match = "once",
) -> nn.Module:
    """The seed engine: of every cluster of channels that separate the classes alike, the one with the largest weights.

    Its keep ratio is the one at which as many parameters stay, so that against ``topk-l1`` only the choice differs.
    """
    share = _of_parameters(target, "clusters")
    ratio = ratio_for(model, graph, share)
    engine = Engine(model, graph, task, streams_for(task, model))
    names = [layer.name for layer in graph.layers]
    settings = Settings(keep=ratio, match=match, seed=seed)
    chosen = engine.front_to_back(names, task.classes, settings)
    engine.close()
    small = compact(chosen.masked, chosen.plan, graph)
    if (left := parameters(small) / parameters(model)) > share * (1 + FAR):
        why = next((step.reason for step in chosen.steps if step.status == "skipped"), "no layer was skipped")
        raise SeqPruneError(f"clusters leave {left:.3f} of the parameters, {share:g} was asked for; {why}")
    return small


def ratio_for(model: nn.Module, graph: ChannelGraph, target: float, scored: FloatArray | None = None) -> float:
    """The keep ratio of the seed engine at which ``target`` of the parameters stays, by bisection.

    How many channels a ratio leaves does not depend on which, so no image is looked at.
    """
    price = Price(model, graph)
    bundles = [graph.bundles(layer.name) for layer in graph.layers]
    scored = np.zeros(graph.group_count) if scored is None else scored

    def share(ratio: float) -> float:
        return price.share(at_ratio(graph, bundles, ratio, scored))

    low, high = 1e-3, 1.0
    for _ in range(10):
        middle = (low + high) / 2
        low, high = (low, middle) if share(middle) > target else (middle, high)
    return min(low, high, key=lambda ratio: abs(share(ratio) - target))


def at_ratio(graph: ChannelGraph, bundles: Sequence[Sequence[Bundle]], ratio: float, scored: FloatArray) -> BoolArray:
    """``[group_count]``: as many groups removed, layer by layer, as the seed engine would; those that score least."""
    removed, decided = np.zeros(graph.group_count, bool), np.zeros(graph.group_count, bool)
    for together in bundles:
        now = np.zeros_like(decided)
        for bundle in together:
            groups = bundle.groups[~decided[bundle.groups]]
            best_first = groups[np.argsort(-scored[groups], kind="stable")]
            removed[best_first[max(1, round(ratio * len(groups))) :]] = True
            now[groups] = True
        if now.any():
            removed = graph.legalise(removed, scored, now)
            decided |= now
    return removed


def by_ratio(name: str, model: nn.Module, graph: ChannelGraph, target: Target, _task: Task, seed: int) -> nn.Module:
    """Plain top-k by a criterion in place of the clusters: of every layer the same number stays as ``clusters`` leaves.

    Not what :func:`by_criterion` does, which rounds counts up: at 0.9 it leaves layers of 16 channels whole, where the
    seed engine takes one, and the front of a network bears little.
    """
    scored = scores(name, Scoring(model, graph, seed))
    bundles = [graph.bundles(layer.name) for layer in graph.layers]
    ratio = ratio_for(model, graph, _of_parameters(target, f"topk-{name}"), scored)
    removed = at_ratio(graph, bundles, ratio, scored)
    return compact(model, PrunePlan.from_removed(graph, removed), graph)


def by_peer(name: str, model: nn.Module, graph: ChannelGraph, target: Target, task: Task, seed: int) -> nn.Module:
    """Torch-Pruning, which makes a graph of its own."""
    return peer(name, model, graph, target, task, seed)


def by_accurate(
    recover: Recover,
    by: tuple[str, ...],
    model: nn.Module,
    graph: ChannelGraph,
    target: Target,
    task: Task,
    _seed: int,
) -> nn.Module:
    """The preset ``accurate`` by some of its moves, chosen over the whole network, and what is left fitted anew."""
    masked, plan = accurately(model, graph, task, target, recover=recover, by=by)
    return compact(masked, plan, None if plan.factors or plan.blocks else graph)


def accurately(
    model: nn.Module,
    graph: ChannelGraph,
    task: Task,
    target: Target,
    *,
    round_to: int = ROUND_TO,
    recover: Recover = "ls",
    by: tuple[str, ...] = BY,
) -> tuple[nn.Module, PrunePlan]:
    """The masked network of the preset ``accurate``, with the pairs of its plan, and what stays of it; see
    :func:`seqprune.engine.moves.decide`.
    """
    engine = Engine(model, graph, task, streams_for(task, model))
    relevance = engine.weigh_errors()
    decided = decide(engine, Way(target, recover, by=by), round_to=round_to, relevance=relevance)
    masked, _ = decided.engine.repair(decided.chosen, recover, decided.relevance)
    engine.close()
    return masked, decided.chosen.plan


def by_size(model: nn.Module, _graph: ChannelGraph, target: Target, _task: Task, _seed: int) -> nn.Module:
    """The unpruned network: smaller images meet the target, see :func:`smaller`."""
    if target.kind == "params":
        raise SeqPruneError(f"{IMGSZ} leaves all parameters: compare at operations")
    return copied(model)


@runtime_checkable
class Resizable(Task, Protocol):
    """A task that can be measured on images of another size.

    Attributes:
        imgsz: side of its images in pixels.
    """

    imgsz: int

    def at_size(self, imgsz: int) -> Resizable: ...


def smaller(model: nn.Module, task: Task, share: float) -> Resizable:
    """The same task on the largest images at which the network has no more than a share of its operations.

    Raises:
        SeqPruneError: there are none, or the size of the images is not known.
    """
    if not isinstance(task, Resizable):
        raise SeqPruneError(f"{IMGSZ} takes smaller images, and these come as they are: leave it out")
    return task.at_size(size_for(model, task.imgsz, share))


def size_for(model: nn.Module, imgsz: int, share: float) -> int:
    """The largest side in pixels at which the network has no more than a share of its operations.

    Raises:
        SeqPruneError: there is none.
    """
    stride, whole = int(max(getattr(model, "stride", (32,)))), gflops(model, imgsz)
    for size in range(padded(imgsz, stride) - stride, 0, -stride):
        if gflops(model, size) <= share * whole:
            return size
    raise SeqPruneError(f"no images are small enough for {share:g} of the operations")


def _of_parameters(target: Target, name: str) -> float:
    """
    Raises:
        SeqPruneError: a target in something else.
    """
    if target.kind != "params":
        raise SeqPruneError(f"{name} is brought to a share of the parameters only: write params={target.share:g}")
    return target.share


EIGHT_BITS = "int8"
"""No method of pruning: every row, the unpruned network's too, is followed by the same in eight bits."""

METHODS: dict[str, Method] = {
    "accurate": partial(by_accurate, "ls", BY),
    "accurate-unrepaired": partial(by_accurate, "none", BY),
    "accurate-channels": partial(by_accurate, "ls", CHANNELS),
    "accurate-factors": partial(by_accurate, "ls", ("factors",)),
    IMGSZ: by_size,
    "clusters": by_clusters,
    "topk-l1": partial(by_ratio, "l1"),
    "topk-random": partial(by_ratio, "random"),
    **{f"tp-{name}": partial(by_peer, name) for name in PEERS},
}
"""Beside them every criterion is one, with the same ratio in all layers; ``NAME-global`` with one threshold."""


def is_network(name: str) -> bool:
    """Whether a method is another network, named by its file."""
    return Path(name).suffix in (".pt", ".safetensors", ".yaml", ".yml")


def by_network(path: str, model: nn.Module, _graph: ChannelGraph, _target: Target, _task: Task, seed: int) -> nn.Module:
    """Another network of the same classes, as it is: a smaller one of the family.

    Raises:
        InputError: it cannot be read.
        SeqPruneError: it has other classes.
    """
    from seqprune.yolo.files.load import load
    from seqprune.yolo.files.networks import NETWORKS, names_of

    found = load(path, tasks=NETWORKS, seed=seed)
    if not hasattr(model, "names") or dict(names_of(model)) != found.names:
        raise SeqPruneError(f"{path} has other classes than the network that is pruned: give one of the same")
    return found.model


def method(name: str) -> Method:
    """The method of that name, or a network's file.

    Raises:
        InputError: there is none.
    """
    if name in METHODS:
        return METHODS[name]
    if is_network(name):
        return partial(by_network, name)
    criterion = name.removesuffix("-global")
    if criterion not in CRITERIA:
        known = ", ".join((*CRITERIA, *METHODS))
        raise InputError(f"there is no method {name!r}: choose {known}, or a criterion with -global behind it")
    return partial(by_criterion, criterion, spread="uniform" if criterion == name else "global")
