"""Several processes share the images and decide as one; where one dies, the others end with an error."""

from __future__ import annotations

import os
import signal
import time

import pytest
import torch
from detectors import CLASSES, Detector, Images, find_all
from several import processes

from seqprune import trace
from seqprune.engine.sequential import prune_sequentially
from seqprune.engine.steps import Settings
from seqprune.observe.batch import Share
from seqprune.observe.ranks import ALONE, connect, share
from seqprune.observe.streaming import Blocks, BlockStream

CHAIN = Blocks("model", tuple((i - 1,) for i in range(6)), (False,) * 6)
LAYERS = ["model.1.conv", "model.2.cv1.conv", "model.3.conv"]
BATCHES = 5  # not as many for one process as for the other


def plan_of_this_process(streamed: bool) -> str:
    torch.set_num_threads(1)
    graph = trace(Detector(), torch.zeros(1, 3, 32, 32))
    plan, model, _reports = prune_sequentially(
        Detector(),
        graph,
        LAYERS,
        Images(count=8 * BATCHES),
        CLASSES,
        settings=Settings(),
        predict=find_all,
        stream=BlockStream(CHAIN) if streamed else None,
        ranks=connect(),
        after_step=wait_to_be_killed,
    )
    return plan.to_json() + repr([float(p.detach().double().sum()) for p in model.parameters()])


def wait_to_be_killed(model: torch.nn.Module, _plan: object) -> torch.nn.Module:
    if os.environ.get("DIES") == os.environ.get("RANK", "0"):
        os.kill(os.getpid(), signal.SIGKILL)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("streamed", [False, True])
def test_two_processes_prune_as_one_bit_for_bit(streamed: bool) -> None:
    code = f"from test_ranks import plan_of_this_process as p; print(p({streamed}))"
    both = processes(2, code)
    said = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert said[0][0].strip() == said[1][0].strip() == plan_of_this_process(streamed).strip()


@pytest.mark.slow
def test_a_process_that_dies_ends_the_run_on_the_others() -> None:
    both = processes(2, "from test_ranks import plan_of_this_process as p; print(p(False))", DIES="1")
    both[1].wait(timeout=120)
    died = time.monotonic()
    _, error = both[0].communicate(timeout=60)
    assert both[1].returncode == -signal.SIGKILL
    assert both[0].returncode != 0
    assert "process 0 of 2 lost the others" in error
    assert time.monotonic() - died < 60


def test_processes_leave_their_group_before_the_interpreter_ends() -> None:
    """One in seven aborted after its work was done: a thread of the group was left to a torn-down interpreter."""
    asked_last = "import atexit, torch.distributed as d; atexit.register(lambda: print('grouped:', d.is_initialized()))"
    both = processes(2, f"{asked_last}\nfrom seqprune.observe.ranks import connect; print(connect().gather('here'))")
    said = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert {out for out, _error in said} == {"['here', 'here']\ngrouped: False\n"}


def test_a_single_process_is_alone() -> None:
    images = Images()
    assert connect() is ALONE
    assert share(images, ALONE) is images


def test_shares_are_disjoint_and_whole() -> None:
    images = Images(count=40)
    shares = [Share(images, rank, 3) for rank in range(3)]
    assert [len(s) for s in shares] == [2, 2, 1] == [len(list(s)) for s in shares]
    taken = {id(batch) for s in shares for batch in s}
    assert taken == {id(batch) for batch in images}
