"""What a criterion may look at, filled from images where it asks for them."""

from __future__ import annotations

from torch import nn

from seqprune.budget.criteria import Scoring
from seqprune.budget.second_order import readings_of
from seqprune.engine.task import Task
from seqprune.graph.channels import ChannelGraph


def scoring_for(name: str, model: nn.Module, graph: ChannelGraph, task: Task | None, seed: int = 0) -> Scoring:
    """For the criterion of that name; only what it needs is measured, and nothing without a task.

    Args:
        name: of the criterion.
        model: in inference mode; it is not changed.
        graph: its channel graph.
        task: with the images to look at.
        seed: of every random choice.

    Raises:
        DataError, ModelError: the images or the model do not give it.
    """
    gradients = task.gradients(model) if task is not None and name == "taylor" else None
    readings = readings_of(model, graph, task.images) if task is not None and name == "obs" else None
    return Scoring(model, graph, seed, gradients, readings)
