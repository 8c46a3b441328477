"""How the choice grows with the network: ``python -m benchmarks.growth yolov8n.yaml yolov8s.yaml yolov8m.yaml``.

Random weights and two images of noise: how long the choice takes hangs on neither. Second moments are not counted.
Processor seconds of one thread, the least of ``--rounds`` in turns. Ends with 1 where the choice grew by more than the
parameters from the first network to the last.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from seqprune.budget import second_order
from seqprune.budget.cost import parameters
from seqprune.budget.spread import Budget
from seqprune.budget.target import Target, price_of
from seqprune.engine.accurate import WEIGHED_RIDGE
from seqprune.observe.batch import Noise
from seqprune.observe.reading import reading_of
from seqprune.yolo.files.load import load
from seqprune.yolo.task.tracing import trace_detector


@dataclass(frozen=True)
class Row:
    """One network: parameters, and processor seconds of the choice."""

    name: str
    parameters: int
    seconds: float


def choice_of(name: str, side: int, target: Target) -> tuple[int, Callable[[], float]]:
    """The parameters of a network, and what chooses once and returns the processor seconds that it took."""
    model, images = load(name).model.eval(), Noise(side)
    graph = trace_detector(model)
    price = price_of(target, model, graph, images.batch.images)
    reading, budget = reading_of(model, images.batch), Budget(target.share, ridge=WEIGHED_RIDGE)

    def once() -> float:
        spent = 0.0
        moments = second_order.second_moments

        def beside(*args: object, **how: object) -> object:
            nonlocal spent
            before = time.process_time()
            found = moments(*args, **how)  # type: ignore[arg-type]
            spent += time.process_time() - before
            return found

        second_order.second_moments = beside  # type: ignore[assignment]
        try:
            before = time.process_time()
            second_order.choose_globally(model, graph, images, price, budget, reading=reading)
            return time.process_time() - before - spent
        finally:
            second_order.second_moments = moments

    return parameters(model), once


def measured(names: Sequence[str], side: int, target: Target, rounds: int) -> list[Row]:
    """One row a network, timed in turns."""
    torch.set_num_threads(1)
    choices = [choice_of(name, side, target) for name in names]
    seconds = [[once() for _, once in choices] for _ in range(rounds)]
    return [Row(name, choices[at][0], min(turn[at] for turn in seconds)) for at, name in enumerate(names)]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("networks", nargs="+")
    parser.add_argument("--imgsz", type=int, default=128)
    parser.add_argument("--target", default="params=0.8")
    parser.add_argument("--rounds", type=int, default=1)
    given = parser.parse_args(arguments)
    rows = measured(given.networks, given.imgsz, Target.parse(given.target), given.rounds)
    first = rows[0]
    for row in rows:
        wider, longer = row.parameters / first.parameters, row.seconds / first.seconds
        print(f"{row.name}: {row.parameters:,} parameters, {row.seconds:.2f} s, {wider:.2f} and {longer:.2f} times")  # noqa: T201
    return int(rows[-1].seconds / first.seconds > rows[-1].parameters / first.parameters)


if __name__ == "__main__":
    sys.exit(main())
