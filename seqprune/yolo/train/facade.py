"""A pruned architecture as an ``ultralytics.YOLO`` of its own, from a description and no file of weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn
from ultralytics import YOLO

from seqprune.errors import ModelError, PlanError
from seqprune.graph.factor import factored
from seqprune.plain import UnreadableError, json_of, printable, text_of
from seqprune.plan import PrunePlan
from seqprune.surgery import compact
from seqprune.yolo.files.contained import contained, one_line
from seqprune.yolo.files.heads import mark_some, with_classes
from seqprune.yolo.files.networks import build
from seqprune.yolo.files.pruned import TRAINERS, remember
from seqprune.yolo.files.settings import plain_settings
from seqprune.yolo.files.tensors import FORMATS, factor_of, without
from seqprune.yolo.files.unpickle import UNREADABLE
from seqprune.yolo.train import trainer as trainers


class PrunedYOLO(YOLO):  # type: ignore[misc]
    """An ``ultralytics.YOLO`` around a network that no YAML describes; its ``train`` keeps the shape.

    Args:
        network: of Ultralytics', carrying its plan; it is not copied.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__("yolov8n.yaml")  # for all else that a YOLO is made of
        self.task = str(network.task)
        self.model = network
        self.model_name = "pruned"
        self.overrides = {"model": "pruned.yaml", "task": self.task}
        self.ckpt: dict[str, Any] = {"train_args": {}}  # without one, Ultralytics trains what the YAML says

    @property
    def task_map(self) -> dict[str, dict[str, Any]]:
        """Ultralytics', with the trainers that keep the shape they are given."""
        known: dict[str, dict[str, Any]] = super().task_map
        ours = {task: {"trainer": getattr(trainers, name)} for task, name in TRAINERS.items() if task in known}
        return known | {task: known[task] | trainer for task, trainer in ours.items()}


def rebuild(description: Mapping[str, Any] | str | Path) -> PrunedYOLO:
    """The pruned architecture of a pair's description, with random weights, ready to be trained as any ``YOLO`` is.

    ``seqprune.yolo.rebuild("pruned.json").train(data="coco128.yaml", epochs=100)`` in a process of its own starts from
    the shape; weights come with ``seqprune.yolo.files.load.load("pruned.safetensors")``.

    Args:
        description: What ``pruned.json`` beside ``pruned.safetensors`` holds, or its path.

    Returns:
        An ``ultralytics.YOLO``; the network is its ``model``, which carries its plan. Weights are drawn by torch's
        generator, which is left as it was.

    Raises:
        ModelError: It describes no network.
        UntrustedError: It holds code where the name of a layer belongs.
    """
    try:
        if isinstance(description, str | Path):
            description = json_of(text_of(description))
        if not isinstance(description, Mapping) or description.get("format") not in FORMATS:
            raise ModelError("describes no network that this version knows: give what result.save wrote as a .json")
        names = {int(number): printable(name, 300) for number, name in description["names"].items()}
        classes = description["yaml"].get("nc", len(names))  # with which it was built, whatever it knows by now
        with contained():
            network: Any = build(description["task"], description["yaml"], classes)
            plan = None if description["plan"] is None else PrunePlan.from_json(json.dumps(description["plan"]))
            if plan is None or not plan.blocks:  # else it names all as they were before blocks left
                without(network, description.get("blocks", ()))
                network = factored(network, [factor_of(factor) for factor in description.get("factors", ())])
            if plan is not None:
                network = compact(network, plan)
            if len(names) != classes:
                network = with_classes(network, [*names.values()])
            network.names, network.nc, network.task = names, len(names), description["task"]
            network.args = plain_settings({"task": description["task"], "imgsz": description["imgsz"] or 640})
            mark_some(network, bool(description.get("some_classes")))
            if plan is not None:
                remember(network, plan.to_json())
            return PrunedYOLO(network)
    except (*UNREADABLE, UnreadableError, PlanError) as error:
        raise ModelError(f"the description cannot be rebuilt ({one_line(error)}): save the pair again") from error
