import pytest

pytestmark = pytest.mark.pruning


def test_it_can_be_pruned(pruning_case):
    pruning_case()


def test_it_stays_accurate(pruning_report):
    assert pruning_report.accuracy_share >= 0.8
