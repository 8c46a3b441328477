"""Scores of channel groups, one interface: a function from what is known of a network to how much each group matters.

A criterion gives ``[group_count]`` numbers, higher stays. What it measures of one channel is summed over all members of
the channel's group: every row of every layer that makes it, since all of them go when the group goes. A user adds one
with :func:`register`, a name and a function.

H. Li et al., "Pruning filters for efficient ConvNets", ICLR 2017 (``l1``); Z. Liu et al., "Learning efficient
convolutional networks through network slimming", ICCV 2017 (``bn``); Y. He et al., "Filter pruning via geometric
median", CVPR 2019 (``fpgm``); P. Molchanov et al., "Importance estimation for neural network pruning", CVPR 2019
(``taylor``); J. Lee et al., "Layer-adaptive sparsity for the magnitude-based pruning", ICLR 2021 (``lamp``);
:mod:`seqprune.budget.surgeon` (``obs``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from seqprune.budget.columns import Source
from seqprune.budget.price import Price
from seqprune.budget.surgeon import removal_order
from seqprune.errors import InputError
from seqprune.graph.active import weight_rows
from seqprune.graph.channels import BoolArray, ChannelGraph

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Readings:
    """What convolutions read.

    Attributes:
        sources: second moments of every input, and the weights that read it.
        known: ``[group_count]``, groups all of whose readers are among them.
    """

    sources: tuple[Source, ...]
    known: BoolArray


@dataclass(frozen=True)
class Scoring:
    """What a criterion may look at.

    Attributes:
        model: the unpruned network; criteria only read it.
        graph: its channel graph.
        seed: of every random choice.
        gradients: by parameter path, ``model.5.conv.weight``, the gradient of the detection loss; ``None`` where nobody
            measured it.
        readings: what every convolution reads; ``None`` where nobody looked.
    """

    model: nn.Module
    graph: ChannelGraph
    seed: int = 0
    gradients: Mapping[str, torch.Tensor] | None = field(default=None, repr=False)
    readings: Readings | None = field(default=None, repr=False)


Criterion = Callable[[Scoring], FloatArray]
CRITERIA: dict[str, Criterion] = {}
FROM_IMAGES = frozenset({"taylor", "obs"})
"""Those that look at more than the weights."""
FROM_LABELS = frozenset({"taylor"})
"""Those of them that ask for labelled objects."""
WEIGHTS_AT_ONCE = 2**17
COMPARABLE = frozenset({"obs"})
"""Those whose scores say over layers what leaves first: one threshold takes them as they are."""


def register(name: str, function: Criterion) -> None:
    """Adds a criterion under a name that is free.

    Raises:
        InputError: the name is taken, or empty.
    """
    if not name or name in CRITERIA:
        raise InputError(f"a criterion cannot be named {name!r}: taken are {', '.join(CRITERIA)}; choose another name")
    CRITERIA[name] = function


def scores(name: str, scoring: Scoring) -> FloatArray:
    """``[group_count]``, what the criterion of that name says, checked.

    Raises:
        InputError: there is no such criterion, or its scores are of another shape or not finite.
    """
    if name not in CRITERIA:
        raise InputError(f"there is no criterion {name!r}: choose {', '.join(CRITERIA)}, or register yours")
    found = np.asarray(CRITERIA[name](scoring), np.float64)
    if found.shape != (scoring.graph.group_count,):
        raise InputError(
            f"criterion {name} gave scores of shape {found.shape}, the graph has {scoring.graph.group_count} groups: "
            "give one number for each group"
        )
    if not np.isfinite(found).all():
        raise InputError(f"criterion {name} gave scores that are not finite: broken weights or gradients; check them")
    return found


def l1(scoring: Scoring) -> FloatArray:
    """Sum of absolute weights: Σ |w| over every weight of every member's row."""
    return _over_rows(scoring, lambda rows: _summed(rows, torch.Tensor.abs_))


def l2(scoring: Scoring) -> FloatArray:
    """Euclidean norms: ‖row‖₂ of each member, summed over members."""
    return _over_rows(scoring, lambda rows: _squares(rows).sqrt())


def bn(scoring: Scoring) -> FloatArray:
    """|BatchNorm weight|, summed over every BatchNorm that the group passes through.

    Raises:
        InputError: a group that may be removed passes through none.
    """
    graph = scoring.graph
    total, seen = np.zeros(graph.group_count), graph.pinned.copy()
    for cut in graph.slices:
        module = scoring.model.get_submodule(cut.module)
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and cut.tensor == "weight":
            np.add.at(total, cut.groups, module.weight.detach().double().abs().cpu().numpy())
            seen[cut.groups] = True
    if not seen.all():
        name = graph.members[int(np.flatnonzero(~seen)[0])][0][0]
        raise InputError(f"no BatchNorm follows {name}, so bn cannot score it: choose l1, l2 or another criterion")
    return total


def fpgm(scoring: Scoring) -> FloatArray:
    """Distances to the other filters: Σ_j ‖row − row_j‖₂ over the rows of the same layer, summed over members.

    A filter near the geometric median of its layer is what the others can stand in for, so it goes first.
    """

    def measure(rows: torch.Tensor) -> torch.Tensor:
        rows = rows.double()
        return torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist").sum(1)

    return _over_rows(scoring, measure)


def taylor(scoring: Scoring) -> FloatArray:
    """First-order change of the detection loss, squared weight by weight: Σ (w · ∂L/∂w)² over every member's row.

    Molchanov's eq. 8, summed over the set of weights that go together. Not the square of the sum: around a minimum what
    the weights of a row contribute cancels, and says little of what their absence would do. The gradients are those of
    the loss with BatchNorm's running statistics, the function that is deployed.

    Raises:
        InputError: there are no gradients, or none for a layer.
    """
    if scoring.gradients is None:
        raise InputError("taylor needs gradients of the detection loss: give labelled images, or choose l2")
    total = np.zeros(scoring.graph.group_count)
    for layer in scoring.graph.all_layers:
        gradient = scoring.gradients.get(f"{layer.name}.weight")
        if gradient is None:
            raise InputError(f"taylor has no gradient for {layer.name}: was it frozen, or measured on another model?")
        module = scoring.model.get_submodule(layer.name)
        products = weight_rows(module).double().cpu() * weight_rows(module, gradient).double().cpu()
        np.add.at(total, layer.groups, products.square().sum(1).numpy())
    return total


def lamp(scoring: Scoring) -> FloatArray:
    """Layer-adaptive magnitude: ‖row‖² / Σ ‖row_j‖² over the rows of its layer not smaller, summed over members.

    A layer's strongest channel has a score of 1 where no other ties with it. Under one threshold over all layers scores
    are divided by their layer's mean all the same, as those of every criterion of weights: the paper does not.
    """

    def measure(rows: torch.Tensor) -> torch.Tensor:
        squares = _squares(rows).cpu().numpy()
        ascending = np.sort(squares)
        not_smaller = ascending[::-1].cumsum()[::-1][np.searchsorted(ascending, squares)]
        return torch.from_numpy(squares / np.maximum(not_smaller, np.finfo(np.float64).tiny))

    return _over_rows(scoring, measure)


def obs(scoring: Scoring) -> FloatArray:
    """When a group leaves in the second-order greedy order over the whole network: 0 first, most for what never does.

    Every step takes the group, or of balanced sections one of each, that adds the least loss for the parameters it
    saves: the error of what reads it, refitted to the channels that stay, given all that left before. So what stays of
    a smaller budget is among what stays of a larger one. All layers' errors count alike.

    Raises:
        InputError: nobody looked at what the convolutions read, or not at what reads some group.
    """
    if scoring.readings is None:
        raise InputError("obs needs to see what the convolutions read: give images, or choose l2")
    graph, known = scoring.graph, scoring.readings.known | scoring.graph.pinned
    if not known.all():
        name = graph.members[int(np.flatnonzero(~known)[0])][0][0]
        raise InputError(f"obs cannot see what all that reads {name} does: choose l2 or another criterion")
    order = removal_order(
        list(scoring.readings.sources),
        ~graph.pinned,
        graph.balances,
        tuple(layer.groups for layer in graph.all_layers),
        Price(scoring.model, graph).savings,
        stop=lambda _gone: False,
        floor=0,
    )
    found: FloatArray = np.full(graph.group_count, float(len(order)))
    for position, step in enumerate(order):
        found[list(step.groups)] = position
    return found


def random(scoring: Scoring) -> FloatArray:
    """Uniform in [0, 1), by the seed: what every other criterion has to beat."""
    return np.random.default_rng(scoring.seed).random(scoring.graph.group_count)


def _squares(rows: torch.Tensor) -> torch.Tensor:
    """``[channels]`` float64, Σ w² of each row."""
    return _summed(rows, torch.Tensor.square_)


def _summed(rows: torch.Tensor, each: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """``[channels]`` float64, the sum of what ``each`` makes of every weight, in place: a few rows at a time, that a
    wide layer is not copied as a whole into memory that it takes longer to get than to add up.
    """
    parts = torch.split(rows, max(1, WEIGHTS_AT_ONCE // max(1, rows.shape[1])))
    return torch.cat([each(part.double() if part.dtype != torch.float64 else part.clone()).sum(1) for part in parts])


def _over_rows(scoring: Scoring, measure: Callable[[torch.Tensor], torch.Tensor]) -> FloatArray:
    """``measure`` of the ``[channels, weights]`` rows of each layer, added up in the groups of its channels."""
    total = np.zeros(scoring.graph.group_count)
    for layer in scoring.graph.all_layers:
        rows = weight_rows(scoring.model.get_submodule(layer.name))
        np.add.at(total, layer.groups, measure(rows).cpu().numpy())
    return total


for _criterion in (l1, l2, bn, fpgm, taylor, lamp, obs, random):
    register(_criterion.__name__, _criterion)
