"""What a pruner does to its process is a result with a reason, and the suite goes on."""

from __future__ import annotations

import os
import signal

import pytest

from seqprune.testing import cases
from seqprune.testing.cases import Prepared, cell
from seqprune.testing.contracts import CONTRACTS, Result
from seqprune.testing.process import Limits

TINY = "planted:tiny"


def seen(fault: str, limits: Limits | None = None, names: tuple[str, ...] = ("returns", "runs")) -> dict[str, Result]:
    return cell(f"planted:{fault}", TINY, names, limits)


def test_ours_in_a_process_of_its_own() -> None:
    found = cell("seqprune", TINY)
    assert [*found] == [*CONTRACTS]
    assert {result.state for result in found.values()} <= {"holds", "not applicable"}


@pytest.mark.parametrize(
    ("fault", "state", "reason"),
    [
        ("ends_its_process", "crashed", "ended by SIGABRT"),
        ("exits", "crashed", "ended with exit code 1; enough"),
        ("takes_all_memory", "fails", "memory"),
    ],
)
def test_a_process_that_ends_costs_the_contract_that_it_was_at(fault: str, state: str, reason: str) -> None:
    found = seen(fault, Limits(60, 3))
    assert found["returns"].state == state
    assert reason in found["returns"].reason
    assert found["runs"].state == "blocked"
    assert found["runs"].reason == "rests on returns"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "reason", "patience"), [("takes_for_ever", "processor time", 1000), ("sleeps", "no answer for", 6)]
)
def test_a_process_that_does_not_end_is_ended(
    fault: str, reason: str, patience: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However busy the machine: there a process waits longer for its processor time than it has patience."""
    monkeypatch.setattr(cases, "_PATIENCE", patience)
    found = seen(fault, Limits(4))
    assert found["returns"].state == "out of time"
    assert reason in found["returns"].reason


def test_a_network_that_is_not_there_is_said_for_every_contract() -> None:
    found = cell("seqprune", "timm:no_such_network", ("runs",))
    assert {result.state for result in found.values()} == {"not run"}
    assert "no_such_network" in found["runs"].reason


def test_a_pruner_that_is_not_there_is_said() -> None:
    assert "no pruner 'nobody'" in cell("nobody", TINY, ("runs",))["runs"].reason


def test_pruners_share_a_prepared_network_and_no_state() -> None:
    """What is compared with is made once; a pruner that ends its process, and ours after it, find the same."""
    with Prepared(TINY, Limits()) as network:
        first = network.cell("seqprune")
        assert network.cell("planted:ends_its_process")["returns"].state == "crashed"
        assert network.cell("planted:overwrites_the_network")["values"].state == "fails"
        assert network.cell("seqprune") == first == cell("seqprune", TINY)
        assert network.seconds > 0


def test_a_pruner_that_ends_what_is_shared_costs_one_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    with Prepared(TINY, Limits()) as network:
        assert network.cell("planted:ends_the_suite", ("returns", "runs"))["returns"].state == "crashed"
        assert network.cell("seqprune", ("runs",))["runs"].state == "holds"
        process = network._process.pid
    with pytest.raises(ProcessLookupError):
        os.kill(process, signal.SIGCONT)


@pytest.mark.parametrize("methods", [("forkserver",), ("spawn",)])
def test_where_a_process_is_not_forked_each_case_prepares_for_itself(
    methods: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cases, "FORKS", False)
    monkeypatch.setattr(cases, "METHODS", methods)
    with Prepared(TINY, Limits()) as network:
        assert network.cell("planted:ends_its_process", ("runs",))["returns"].state == "crashed"
        assert network.cell("seqprune", ("values",))["values"].state == "holds"
        assert network._process is None
    with Prepared("timm:no_such_network", Limits()) as network:
        assert "no_such_network" in network.cell("seqprune", ("returns",))["returns"].reason
