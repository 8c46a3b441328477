"""What a pruner does to its process is a result with a reason, and the suite goes on."""

from __future__ import annotations

import pytest

from seqprune.testing.cases import Limits, cell
from seqprune.testing.contracts import CONTRACTS, Result

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
@pytest.mark.parametrize(("fault", "reason"), [("takes_for_ever", "processor time"), ("sleeps", "no answer for")])
def test_a_process_that_does_not_end_is_ended(fault: str, reason: str) -> None:
    found = seen(fault, Limits(4))
    assert found["returns"].state == "out of time"
    assert reason in found["returns"].reason


def test_a_network_that_is_not_there_is_said_for_every_contract() -> None:
    found = cell("seqprune", "timm:no_such_network", ("runs",))
    assert {result.state for result in found.values()} == {"not run"}
    assert "no_such_network" in found["runs"].reason


def test_a_pruner_that_is_not_there_is_said() -> None:
    assert "no pruner 'nobody'" in cell("nobody", TINY, ("runs",))["runs"].reason
