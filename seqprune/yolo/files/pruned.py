"""What a pruned network carries with it: its plan, and a bar against being rebuilt at full width.

``YOLO("pruned.pt").train(data=...)`` builds a network from the YAML in the checkpoint and copies the tensors that fit:
all that was pruned comes back with random weights, without a word. No YAML can describe most pruned shapes (a
bottleneck's inner width is not in it), and the checkpoint must open where seqprune is not installed, so no code of ours
can step in. What can is the YAML itself: nothing reads its first entry but that rebuild, which looks the entry's module
up by name. The bar is an entry whose module is a sentence, so the rebuild ends in ``KeyError: 'this network was pruned:
...'`` that names the remedy. Loading, prediction, validation, export and ``info`` never parse the YAML.

The plan travels as an attribute of the network: Ultralytics copies it to the EMA, into every checkpoint and to the
processes of a multi-GPU run, none of which know more of a checkpoint than its network.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from torch import nn

from seqprune.errors import ModelError
from seqprune.graph.active import weight_rows
from seqprune.graph.leaving import placed
from seqprune.plan import PrunePlan
from seqprune.yolo.files.networks import by_queries

TRAINERS = {
    "detect": "DetectionTrainer",
    "segment": "SegmentationTrainer",
    "pose": "PoseTrainer",
    "obb": "OBBTrainer",
    "classify": "ClassificationTrainer",
}
_QUERIES = "RTDETRTrainer"
_PLAN = "seqprune_plan"
# Ultralytics takes a name with "nn." in it for one of torch's: the sentence must not contain that.
_BAR = (
    "this network was pruned: training rebuilds it at full width from its YAML; keep its shape with "
    "`seqprune finetune`, or train(trainer=seqprune.yolo.{})"
)


def remember(model: Any, plan: str) -> None:
    """Let a network carry its plan (JSON), and bar its rebuilding; in place."""
    forget(model)
    setattr(model, _PLAN, plan)
    sentence = _BAR.format(trainer_of(model))
    model.yaml = deepcopy(model.yaml)
    model.yaml["backbone"].insert(0, [-1, 1, sentence, []])


def trainer_of(model: nn.Module) -> str:
    """Name of the trainer that keeps a network's shape."""
    return _QUERIES if by_queries(model) else TRAINERS.get(getattr(model, "task", "detect"), "DetectionTrainer")


def forget(model: Any) -> PrunePlan | None:
    """Take both away again, in place; returns the plan, ``None`` where there was none."""
    plan = plan_of(model)
    vars(model).pop(_PLAN, None)
    if hasattr(model, "yaml") and (plain := without_bar(model.yaml)) is not model.yaml:
        model.yaml = deepcopy(plain)
    return plan


def without_bar(description: Any) -> Any:
    """A network's YAML without the bar, where it has one."""
    entries = description.get("backbone") if isinstance(description, dict) else None
    if not isinstance(entries, list) or not entries or not _is_bar(entries[0]):
        return description
    return {**description, "backbone": entries[1:]}


def _is_bar(entry: Any) -> bool:
    is_entry = isinstance(entry, list | tuple) and len(entry) == 4
    return is_entry and entry[2] in [_BAR.format(trainer) for trainer in (*TRAINERS.values(), _QUERIES)]


def plan_of(model: nn.Module) -> PrunePlan | None:
    """The plan a network carries.

    Raises:
        PlanError: it carries something else under that name.
    """
    text = getattr(model, _PLAN, None)
    return None if text is None else PrunePlan.from_json(text)


def is_masked(model: nn.Module, plan: PrunePlan) -> bool:
    """Whether the plan's channels are there as zeros (``True``) or gone (``False``).

    Raises:
        ModelError: the widths are neither the plan's before nor after pruning.
    """
    seen = {layer.name: _width(model, placed(model, plan.blocks, layer.name)) for layer in plan.layers}
    if all(seen[layer.name] == len(layer.keep) for layer in plan.layers):
        return False
    if all(seen[layer.name] == layer.channels for layer in plan.layers):
        return True
    wrong = next(layer for layer in plan.layers if seen[layer.name] != len(layer.keep))
    raise ModelError(
        f"{wrong.name} has {seen[wrong.name]} channels where its plan leaves {len(wrong.keep)}: it was rebuilt or "
        "trained without seqprune's trainer; prune it again"
    )


def _width(model: nn.Module, name: str | None) -> int | None:
    if name is None:
        return None
    try:
        return int(weight_rows(model.get_submodule(name)).shape[0])
    except (AttributeError, ModelError):
        return None
