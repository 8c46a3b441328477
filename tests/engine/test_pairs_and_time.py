"""Where time is the target pairs are tried against channels: in some runtimes they save nothing, however narrow."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from seqprune.engine.engine import Chosen
from seqprune.engine.listener import Listener
from seqprune.engine.moves import Decided, _Pairs
from seqprune.engine.state import State
from seqprune.engine.steps import StepReport
from seqprune.errors import TargetError
from seqprune.observe.ranks import ALONE, Ranks
from seqprune.plan import PrunePlan


@dataclass(frozen=True)
class Engine:
    told: Listener
    state: State = field(default_factory=State)
    ranks: Ranks = ALONE

    def aside(self) -> Engine:
        return Engine(Listener(), ranks=self.ranks)

    def tried(self, chosen: Chosen, _relevance: Any) -> Any:
        return chosen.masked


class Pairs(_Pairs):
    """What each share of the pairs loses, or why it cannot be; told of as one step."""

    def __init__(self, losses: dict[float, float | TargetError], told: Listener) -> None:
        self.losses, self.engine, self.relevance, self.most = losses, Engine(told), None, min(losses)  # type: ignore[assignment]

    def to(self, share: float, engine: Any = None) -> Decided:
        loss = self.losses[share]
        if isinstance(loss, TargetError):
            raise loss
        step = StepReport(str(share), 0, 1, 1, 1)
        engine.told.step(step)
        return Decided(engine, Chosen(PrunePlan((), ()), loss, (step,)), None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("losses", "kept"),
    [
        ({0.8: 3.0, 0.9: 2.0, 1.0: 1.0}, "1.0"),
        ({0.8: 3.0, 0.9: 1.0, 1.0: 2.0}, "0.9"),
        ({0.8: 1.0, 0.9: 1.0, 1.0: 1.0}, "0.8"),  # as it would be without trying
        ({0.8: TargetError("too narrow"), 0.9: TargetError("too narrow"), 1.0: 9.0}, "1.0"),
    ],
)
def test_what_changes_the_outputs_least_is_kept_and_told_once(losses: dict[float, Any], kept: str) -> None:
    steps: list[StepReport] = []
    told = Listener(step=steps.append)
    pairs = Pairs(losses, told)
    made = pairs.best(lambda model: float(model))  # type: ignore[arg-type]
    assert [step.layer for step in steps] == [step.layer for step in made.chosen.steps] == [kept]
    assert made.engine.told is told


def test_where_nothing_meets_the_target_the_last_reason_is_said() -> None:
    reasons = {share: TargetError(f"at {share}") for share in (0.8, 0.9, 1.0)}
    with pytest.raises(TargetError, match=r"at 1\.0"):
        Pairs(dict(reasons), Listener()).best(lambda _: 0.0)


def test_a_run_that_goes_on_does_not_try_again(tmp_path: Any) -> None:
    asked: list[float] = []

    def judge(model: Any) -> float:
        asked.append(model)
        return float(model)

    for _ in range(2):
        pairs = Pairs({0.8: 3.0, 0.9: 1.0, 1.0: 2.0}, Listener())
        pairs.engine = replace(pairs.engine, state=State(tmp_path))
        pairs.best(judge)
    assert asked == [3.0, 1.0, 2.0]
