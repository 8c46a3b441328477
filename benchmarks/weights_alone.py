"""Pruning by weights alone beside Torch-Pruning: ``python -m benchmarks.weights_alone [NETWORK ...]``.

torchvision's networks with random weights at 64 px: 30 % of the parameters out by ``lamp`` under one threshold,
compact; beside a copy and Torch-Pruning's ``MetaPruner`` with magnitudes, one threshold and ``pruning_ratio=0.3``, its
classifier left whole. Processor seconds of one thread, medians of ``--rounds`` in turns. Ends with 1 where ours takes
longer on any.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from itertools import pairwise
from statistics import median
from typing import Any

import torch
import torchvision
from torch import nn

from seqprune.budget.criteria import Scoring, scores
from seqprune.budget.price import Price
from seqprune.budget.spread import by_scores
from seqprune.graph import trace
from seqprune.plan import PrunePlan
from seqprune.surgery import compact

NETWORKS = (
    *("resnet18", "resnet50", "vgg16_bn", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0"),
    *("regnet_x_400mf", "regnet_y_400mf", "squeezenet1_1", "resnext50_32x4d", "densenet121", "mnasnet1_0"),
)
SHARE = 0.7
Parts = list[float]
"""Processor seconds of trace, plan and compact; of the other in one piece."""


def ours(model: nn.Module, image: torch.Tensor) -> Parts:
    """Trace, plan, compact."""
    at = [time.process_time()]
    graph = trace(model, image)
    at.append(time.process_time())
    found = scores("lamp", Scoring(model, graph))
    plan = PrunePlan.from_removed(graph, by_scores(graph, Price(model, graph), found, SHARE, spread="global"))
    at.append(time.process_time())
    compact(model, plan, graph)
    at.append(time.process_time())
    return [after - before for before, after in pairwise(at)]


def theirs(model: nn.Module, image: torch.Tensor) -> Parts:
    """As in its own examples. It prunes in place: the copy is part of its time, as it is of ours."""
    import torch_pruning

    before = time.process_time()
    model = deepcopy(model)
    layers: list[Any] = [each for each in model.modules() if isinstance(each, nn.Conv2d | nn.Linear)]
    torch_pruning.pruner.MetaPruner(
        model,
        image,
        importance=torch_pruning.importance.MagnitudeImportance(p=2),
        global_pruning=True,
        pruning_ratio=1 - SHARE,
        ignored_layers=layers[-1:],
    ).step()
    return [time.process_time() - before]


def in_turns(name: str, rounds: int) -> list[Parts]:
    """Medians of the parts, ours and theirs, after a round that is not counted."""
    torch.manual_seed(0)
    model, image = torchvision.models.get_model(name, weights=None).eval(), torch.zeros(1, 3, 64, 64)
    ways: tuple[Callable[[nn.Module, torch.Tensor], Parts], ...] = (ours, theirs)
    seconds: list[list[Parts]] = [[], []]
    for turn in range(rounds + 1):
        for way, found in zip(ways, seconds, strict=True):
            gc.collect()
            gc.freeze()  # what others left behind is not looked through
            parts = way(model, image)
            found += [parts] if turn else []
    return [[median(part) for part in zip(*found, strict=True)] for found in seconds]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.weights_alone", description=__doc__)
    parser.add_argument("networks", nargs="*", default=NETWORKS)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print("| | seqprune | trace + plan + compact | Torch-Pruning | ratio |\n|---|---|---|---|---|")  # noqa: T201
    slower = False
    for name in given.networks:
        mine, other = in_turns(name, given.rounds)
        ratio = sum(mine) / sum(other)
        parts = " + ".join(f"{part:.3f}" for part in mine)
        print(f"| {name} | {sum(mine):.3f} | {parts} | {sum(other):.3f} | {ratio:.2f} |", flush=True)  # noqa: T201
        slower |= ratio > 1
    return int(slower)


if __name__ == "__main__":
    sys.exit(main())
