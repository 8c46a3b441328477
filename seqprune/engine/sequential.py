"""The loop: observe a layer on the model pruned so far, select, mask, go on to the next, front to back."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from seqprune.engine import insight
from seqprune.engine.norms import gamma, weight_norm
from seqprune.engine.steps import Done, Settings, StepReport
from seqprune.errors import InputError, LayerSkipped, VerificationError
from seqprune.graph.active import active_channels
from seqprune.graph.channels import Bundle, ChannelGraph
from seqprune.observe.batch import LabelledImages
from seqprune.observe.extract import Observation, Predict, Progress, match_objects, observe
from seqprune.observe.forward import Forward
from seqprune.observe.lanes import joined
from seqprune.observe.ranks import ALONE, Ranks, share
from seqprune.observe.streaming import BlockStream
from seqprune.plan import PrunePlan, find_layer
from seqprune.select.choose import Choice, choose
from seqprune.select.layers import block_of
from seqprune.surgery import masker

FloatArray = npt.NDArray[np.float64]


def front_to_back(graph: ChannelGraph, layers: Sequence[str]) -> list[str]:
    """Named layers in execution order, each once.

    Raises:
        PlanError: a layer that the model does not have, or that cannot be pruned.
    """
    return sorted({find_layer(graph, name).name for name in layers}, key=graph.order.__getitem__)


def prune_sequentially(
    model: nn.Module,
    graph: ChannelGraph,
    layers: Sequence[str],
    images: LabelledImages,
    classes: int,
    *,
    settings: Settings | None = None,
    predict: Predict | None = None,
    on_step: Callable[[StepReport], None] | None = None,
    progress: Progress | None = None,
    after_step: Callable[[nn.Module, PrunePlan], nn.Module] | None = None,
    stream: BlockStream | None = None,
    forward: Forward | None = None,
    ranks: Ranks = ALONE,
    done: Done | None = None,
    keep: Callable[[Done], None] = lambda _done: None,
) -> tuple[PrunePlan, nn.Module, list[StepReport]]:
    """Prunes layers one after the other and masks them in ``model`` as it goes.

    Args:
        model: in inference mode; it is changed in place.
        graph: its channel graph.
        layers: module paths in any order.
        images: labelled images for the observation; every process is given all of them.
        classes: number of classes.
        settings: how channels are selected.
        predict: the detector's predictions for a batch, needed unless every object counts.
        on_step: called with every step's report.
        progress: called with the number of images of every batch that was run.
        after_step: given the masked model and the plan so far, returns the model to go on with
            (a fine-tuned one).
        stream: makes all observations together cost about one pass over the images.
        forward: precision, and how many images at a time.
        ranks: the processes that share the images; all return the same.
        done: what an earlier run decided, whose ``model`` this is; it goes on behind that.
        keep: told what is decided, after every step.

    Returns:
        The plan, the masked model and a report a layer, front to back.

    Raises:
        PlanError: an unknown or pinned layer.
        VerificationError: the model's active channels are not those the plan says.
    """
    settings, forward = settings or Settings(), forward or Forward()
    order = front_to_back(graph, layers)
    mine = joined(share(images, ranks), model, ranks)
    look = partial(observe, images=mine, progress=progress, stream=stream, forward=forward, ranks=ranks)
    match = _matching(predict, settings, mine, progress, forward, ranks)
    run = _Run(model, graph, classes, settings, look, match, ranks)
    reports = run.all(order, done, on_step, _then(after_step, stream), keep)
    return run.plan(), run.model, reports


def _matching(
    predict: Predict | None,
    settings: Settings,
    images: LabelledImages,
    progress: Progress | None,
    forward: Forward,
    ranks: Ranks,
) -> Callable[[nn.Module], list[torch.Tensor]] | None:
    """What finds the objects that count; ``None`` where all do.

    Raises:
        InputError: it is asked for, and there are no predictions.
    """
    if predict is not None:
        told = progress and (lambda images: progress(images * ranks.count))  # the others are about as far
        return partial(match_objects, predict=predict, images=images, progress=told, forward=forward)
    if settings.match != "all":
        raise InputError(f"match={settings.match} needs the detector's predictions: give predict, or match=all")
    return None


def _then(
    after_step: Callable[[nn.Module, PrunePlan], nn.Module] | None, stream: BlockStream | None
) -> Callable[[nn.Module, PrunePlan], nn.Module]:
    """What is done between the steps; what was kept of a network that was trained since is of no use."""

    def then(model: nn.Module, plan: PrunePlan) -> nn.Module:
        if after_step is None:
            return model
        trained = after_step(model, plan)
        if stream is not None:
            stream.reset()
        return trained

    return then


class _Run:
    """The state of one sequential run: the masked model and what was removed and decided so far."""

    def __init__(
        self,
        model: nn.Module,
        graph: ChannelGraph,
        classes: int,
        settings: Settings,
        look: Callable[..., Observation],
        match: Callable[[nn.Module], list[torch.Tensor]] | None,
        ranks: Ranks,
    ) -> None:
        self.model, self.graph, self.classes, self.settings = model, graph, classes, settings
        self.look, self.find, self.ranks = look, match, ranks
        self.removed = np.zeros(graph.group_count, bool)
        self.decided_by: dict[int, str] = {}
        self.matched: list[torch.Tensor] | None = None

    def all(
        self,
        order: Sequence[str],
        done: Done | None,
        on_step: Callable[[StepReport], None] | None,
        then: Callable[[nn.Module, PrunePlan], nn.Module],
        keep: Callable[[Done], None],
    ) -> list[StepReport]:
        """Every layer in turn, behind those that an earlier run decided."""
        reports: list[StepReport] = []
        if done is not None:
            reports = list(done.steps)
            self.removed, self.decided_by, self.matched = done.removed.copy(), dict(done.decided_by), done.matched
        if self.settings.match == "once" and self.matched is None:
            self.match()
            keep(self.done(reports))
        for name in order[len(reports) :]:
            self.check_active()
            report = self.step(name)
            reports.append(report)
            if on_step is not None:
                on_step(report)
            if report.removed:
                self.model = then(self.model, self.plan())
            keep(self.done(reports))
        self.check_active()
        return reports

    def match(self) -> None:
        if self.find is not None:
            self.matched = self.find(self.model)

    def done(self, reports: list[StepReport]) -> Done:
        return Done(list(reports), self.removed.copy(), dict(self.decided_by), self.matched)

    def plan(self) -> PrunePlan:
        return PrunePlan.from_removed(self.graph, self.removed)

    def check_active(self) -> None:
        """The weights must be zero where the plan says so, in every layer."""
        for layer in self.graph.all_layers:
            gone = self.removed[layer.groups]
            seen = active_channels(self.model.get_submodule(layer.name))
            # Another channel may die or come alive in fine-tuning; a removed one must not come back.
            if (seen & gone).any():
                raise VerificationError(
                    f"{layer.name} has {int(seen.sum())} active channels, the plan leaves {int((~gone).sum())}: "
                    "masked channels woke up, likely in a training loop without seqprune's mask"
                )

    def step(self, name: str) -> StepReport:
        start = time.perf_counter()
        layer = self.graph.by_name[name]
        before = int((~self.removed[layer.groups]).sum())
        observation, choices, bundles = Observation({}, 0), [], self._open_bundles(name)
        members = tuple(n for n in self.graph.order if any(n in b.columns for b in bundles))
        reason = ""
        if bundles:
            try:
                observation = self._observe(members)
                choices = self.ranks.first(partial(self._choose, bundles, observation))
            except LayerSkipped as why:
                reason = str(why)
            else:
                self._remove(bundles, choices)
        else:
            deciders = {self.decided_by[g] for g in layer.groups.tolist() if g in self.decided_by}
            reason = f"decided together with {', '.join(sorted(deciders))}"
        after = int((~self.removed[layer.groups]).sum())
        return StepReport(
            layer=name,
            block=block_of(name),
            channels=layer.channels,
            active_before=before,
            active_after=after,
            objects=observation.objects,
            classes=tuple(sorted({c for choice in choices for c in choice.classes})),
            k=sum(choice.k for choice in choices),
            status="pruned" if choices or not bundles else "skipped",
            reason=reason,
            members=members,
            seconds=time.perf_counter() - start,
            seen=insight.of(choices),
        )

    def _open_bundles(self, name: str) -> list[Bundle]:
        """What is still to be decided for a layer."""
        bundles = []
        for bundle in self.graph.bundles(name):
            undecided = np.array([g not in self.decided_by for g in bundle.groups.tolist()])
            if undecided.any():
                columns = {n: c[undecided] for n, c in bundle.columns.items()}
                bundles.append(Bundle(bundle.groups[undecided], columns))
        return bundles

    def _observe(self, members: Sequence[str]) -> Observation:
        if self.settings.match == "each":
            self.match()
        seen = self.look(self.model, members, classes=self.classes, matched=self.matched)
        if not seen.objects:
            raise LayerSkipped("no labelled object was matched: try --match all, more images, or check the labels")
        return seen

    def _choose(self, bundles: Sequence[Bundle], observation: Observation) -> list[Choice]:
        choices = []
        for bundle in bundles:
            moments = [
                observation.moments[name].channels(columns[:, time])
                for name, columns in bundle.columns.items()
                for time in range(columns.shape[1])
            ]
            choices.append(
                choose(
                    moments,
                    self._importance(bundle),
                    keep=self.settings.keep,
                    represent=self.settings.represent,
                    seed=self.settings.seed,
                    min_samples=self.settings.min_samples,
                )
            )
        return choices

    def _remove(self, bundles: Sequence[Bundle], choices: Sequence[Choice]) -> None:
        """Masks what was not chosen, after giving back what constraints and rounding ask for."""
        removed, decided = self.removed.copy(), np.zeros_like(self.removed)
        scores: FloatArray = np.zeros(len(removed))
        for bundle, choice in zip(bundles, choices, strict=True):
            decided[bundle.groups] = True
            scores[bundle.groups] = self._importance(bundle)
            removed[np.delete(bundle.groups, choice.keep)] = True
        removed = self.graph.legalise(removed, scores, decided, self.settings.round_to)
        plan = PrunePlan.from_removed(self.graph, removed)
        masker(plan, self.graph)(self.model)
        self.removed = removed
        self.decided_by.update(dict.fromkeys(np.flatnonzero(decided).tolist(), next(iter(bundles[0].columns))))

    def _importance(self, bundle: Bundle) -> FloatArray:
        """``[units]``, summed over the members of each channel group."""
        measure = gamma if self.settings.represent == "gamma" else weight_norm
        total: FloatArray = np.zeros(len(bundle.groups))
        for name, columns in bundle.columns.items():
            total += measure(self.model, self.graph, name)[columns].sum(1)
        return total


__all__ = ["front_to_back", "prune_sequentially"]
