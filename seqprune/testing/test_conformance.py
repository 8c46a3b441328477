"""The suite itself: ``pytest --pyargs seqprune.testing --model best.pt --data data.yaml``."""

from __future__ import annotations

import pytest

from seqprune.testing.baseline import against
from seqprune.testing.behaviour import EXPORTED
from seqprune.testing.plugin import setting
from seqprune.testing.session import PruningCase, PruningReport

pytestmark = pytest.mark.pruning


def test_contract(pruning_case: PruningCase) -> None:
    """Each contract of each pruner on each network; ``seqprune.testing.contracts`` says which."""
    pruning_case()


def test_the_runtime_agrees(pruning_report: PruningReport, pytestconfig: pytest.Config) -> None:
    """Exported, the pruned model gives in --runtime what it gives in torch."""
    if (setting(pytestconfig, "runtime") or "torch") == "torch":
        pytest.skip("no --runtime")
    assert pruning_report.runtime_difference <= EXPORTED


def test_accuracy(pruning_report: PruningReport, pytestconfig: pytest.Config) -> None:
    """The pruned model's accuracy is at least --min-share of the unpruned one's."""
    least = setting(pytestconfig, "min-share")
    if least is None:
        pytest.skip("no --min-share")
    assert pruning_report.accuracy_share >= float(least)


def test_time(pruning_report: PruningReport, pytestconfig: pytest.Config) -> None:
    """Its time is at most --max-time of the unpruned one's, in --runtime."""
    most = setting(pytestconfig, "max-time")
    if most is None:
        pytest.skip("no --max-time")
    assert pruning_report.time_share <= float(most)


@pytest.mark.regression
def test_nothing_got_worse(pruning_report: PruningReport, pytestconfig: pytest.Config) -> None:
    """Against --baseline: size, outputs, accuracy and time; --update-baseline writes it."""
    folder = setting(pytestconfig, "baseline")
    if folder is None:
        pytest.skip("no --baseline")
    worse = against(pruning_report, folder, update=bool(pytestconfig.getoption("pruning_update_baseline")))
    assert not worse, "; ".join(worse)
