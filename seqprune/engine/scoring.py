"""What a criterion may look at, filled from images where it asks for them."""

from __future__ import annotations

from torch import nn

from seqprune.budget.criteria import Scoring
from seqprune.budget.second_order import readings_of
from seqprune.graph.channels import ChannelGraph
from seqprune.observe.batch import LabelledImages
from seqprune.yolo.task.gradients import loss_gradients


def scoring_for(
    name: str, model: nn.Module, graph: ChannelGraph, images: LabelledImages | None, seed: int = 0
) -> Scoring:
    """For the criterion of that name; only what it needs is measured, and nothing without images.

    Args:
        name: of the criterion.
        model: a detector in inference mode; it is not changed.
        graph: its channel graph.
        images: labelled images.
        seed: of every random choice.

    Raises:
        DataError, ModelError: the images or the model do not give it.
    """
    gradients = loss_gradients(model, images) if images is not None and name == "taylor" else None
    readings = readings_of(model, graph, images) if images is not None and name == "obs" else None
    return Scoring(model, graph, seed, gradients, readings)
