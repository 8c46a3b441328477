"""Preset ``accurate`` in several processes: the plan and the weights of one, to the bit."""

from __future__ import annotations

import hashlib
import os
import signal
import time

import pytest
import torch
from detectors import Detector, Images
from killed import LATENCY, Network, batches, drift
from several import processes
from torch import nn

from seqprune import mask, trace
from seqprune.budget.price import Price
from seqprune.budget.second_order import choose_globally
from seqprune.budget.spread import Budget
from seqprune.engine.stopwatch import Stopwatch
from seqprune.errors import TargetError
from seqprune.observe.inputs import Inputs
from seqprune.observe.ranks import ALONE, Pieces, connect
from seqprune.observe.reading import reading_of
from seqprune.observe.relevance import relevance_of
from seqprune.observe.stages import stages_of
from seqprune.observe.streaming import Blocks, BlockStream
from seqprune.plan import PrunePlan
from seqprune.repair.refit import refit
from seqprune.run import prune

CHAIN = Blocks("model", tuple((i - 1,) for i in range(6)), (False,) * 6)
BATCHES = 5  # not as many for one process as for the others


def probe(model: nn.Module, inputs: Inputs, random: torch.Generator) -> torch.Tensor:
    found = model(inputs)[0]
    return (found * torch.randn(found.shape, generator=random)).sum()


def weights_of_this_process(streamed: bool, target: float = 0.7) -> str:
    """The plan and a hash of every weight after weighing, choice and fit."""
    torch.set_num_threads(1)
    ranks, model, images = connect(), Detector().eval(), Images(count=8 * BATCHES)
    graph = trace(model, torch.zeros(1, 3, 32, 32))
    reading = reading_of(model, next(iter(images)))
    relevance = relevance_of(model, reading.names, images, probe, reading=reading, ranks=ranks)
    budget = Budget(target, round_to=1)
    removed = choose_globally(
        model, graph, images, Price(model, graph), budget, relevance=relevance, reading=reading, ranks=ranks
    )
    if os.environ.get("DIES") == os.environ.get("RANK", "0"):
        os.kill(os.getpid(), signal.SIGKILL)
    plan = PrunePlan.from_removed(graph, removed)
    masked = mask(model, plan, graph)
    stages = stages_of(model, torch.zeros(1, 3, 32, 32))
    streams = (BlockStream(CHAIN), BlockStream(CHAIN)) if streamed else None
    fitted = refit(
        *(model, masked, graph, removed, images, stages),
        streams=streams,
        relevance=relevance,
        reading=reading,
        ranks=ranks,
    )
    assert fitted
    digest = hashlib.sha256()
    for tensor in masked.state_dict().values():
        digest.update(tensor.numpy().tobytes())
    return f"{plan.to_json()} {fitted} {digest.hexdigest()}"


@pytest.mark.slow
@pytest.mark.parametrize(("count", "streamed"), [pytest.param(2, False, marks=pytest.mark.long), (2, True), (4, False)])
def test_several_processes_choose_and_fit_as_one_bit_for_bit(count: int, streamed: bool) -> None:
    code = f"from test_ranks_accurate import weights_of_this_process as w; print(w({streamed}))"
    all_ = processes(count, code)
    said = [process.communicate(timeout=240) for process in all_]
    assert [process.returncode for process in all_] == [0] * count, said
    assert {out.strip() for out, _ in said} == {weights_of_this_process(streamed).strip()}


def pruned_by_time() -> str:
    """The plan and a hash of every weight of a target in time. Only the first process has a clock."""
    torch.set_num_threads(1)
    drift(0.0)
    if int(os.environ.get("RANK", "0")):
        Stopwatch.networks = Stopwatch.layers = None  # type: ignore[method-assign,assignment]
    result = prune(Network(), batches, **LATENCY)
    digest = hashlib.sha256()
    for tensor in result.model.state_dict().values():
        digest.update(tensor.numpy().tobytes())
    return f"{result.plan.to_json()} {digest.hexdigest()}"


@pytest.mark.slow
def test_a_target_in_time_is_met_by_the_times_of_the_first_process() -> None:
    """Every process took its own, each while the others did."""
    both = processes(2, "from test_ranks_accurate import pruned_by_time as p; print(p())")
    said = [process.communicate(timeout=240) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    with pytest.MonkeyPatch.context() as patched:
        for name in ("networks", "layers"):
            patched.setattr(Stopwatch, name, getattr(Stopwatch, name))  # as it was, afterwards
        assert {out.strip() for out, _ in said} == {pruned_by_time().strip()}


@pytest.mark.slow
def test_a_process_that_dies_between_choice_and_fit_ends_the_others() -> None:
    both = processes(2, "from test_ranks_accurate import weights_of_this_process as w; print(w(False))", DIES="0")
    both[0].wait(timeout=120)
    died = time.monotonic()
    _, error = both[1].communicate(timeout=60)
    assert both[1].returncode != 0
    assert "process 1 of 2 lost the others" in error
    assert time.monotonic() - died < 60


@pytest.mark.slow
def test_what_the_first_process_refuses_all_refuse() -> None:
    """The first raised, the others waited for its answer and told of a process that was lost."""
    code = "from test_ranks_accurate import weights_of_this_process as w; print(w(False, 0.01))"
    both = processes(2, code)
    said = [process.communicate(timeout=120) for process in both]
    assert all(TargetError.__name__ in error and "cannot be met" in error for _, error in said), said


def test_alone_nothing_is_kept_until_the_end_of_a_round() -> None:
    taken: list[int] = []
    pieces = Pieces(ALONE, taken.append)
    pieces.add(1)
    assert (taken, pieces.mine) == ([1], [[]])
    pieces.settle()
    assert taken == [1]


def test_rounds_are_as_many_for_every_process() -> None:
    images = Images(count=40)
    assert [batch.number for batch in ALONE.rounds(images) if batch is not None] == [b.number for b in images]
