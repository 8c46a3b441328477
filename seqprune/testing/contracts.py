"""What a pruned network owes the one it was made of: one contract a sentence, each checked by values.

``check(name, unpruned, pruner, example_inputs, keep)`` raises :class:`ContractError` with the name of the contract and
the values that were compared. A contract is asked only where those that it rests on hold: a network that does not run
has no values to compare, and says so once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import nn

from seqprune.errors import InputError
from seqprune.graph.values import first_line
from seqprune.testing import behaviour, structure
from seqprune.testing.plain import plain
from seqprune.testing.trial import FAILS, ContractError, Inputs, Keep, NotApplicable, Prune, Trial, trial

State = Literal["holds", "fails", "blocked", "not applicable", "crashed", "out of time", "not run"]

BROKEN: tuple[State, ...] = ("fails", "blocked", "crashed", "out of time", "not run")
"""States of a contract on which nothing can rest."""


@dataclass(frozen=True)
class Contract:
    """One thing that is owed.

    Attributes:
        name: what a failure is called.
        check: raises :class:`ContractError` where it does not hold, :class:`NotApplicable` where it asks nothing.
        requires: contracts that it rests on.
        own: whether it can be asked of a pruner that chooses the channels itself.
    """

    name: str
    check: Callable[[Trial], None]
    requires: tuple[str, ...] = ("runs",)
    own: bool = True

    @property
    def law(self) -> str:
        """The contract in one sentence."""
        return (self.check.__doc__ or "").strip()


CONTRACTS: dict[str, Contract] = {
    c.name: c
    for c in (
        Contract("returns", structure.returns, ()),
        Contract("smaller", structure.smaller, ("returns",)),
        Contract("channels", structure.channels, ("returns",)),
        Contract("batchnorm", structure.batchnorm, ("returns",)),
        Contract("order", structure.order, ("returns",)),
        Contract("runs", behaviour.runs, ("returns",)),
        Contract("values", behaviour.values),
        Contract("alone", behaviour.alone, own=False),
        Contract("orders", behaviour.orders, own=False),
        Contract("training", behaviour.training),
        Contract("saving", behaviour.saving),
        Contract("fusing", behaviour.fusing, ("runs", "values")),
        Contract("exporting", behaviour.exporting, ("runs", "values")),
        Contract("plain", plain, ("runs", "values")),
    )
}
"""In the order in which they are asked."""


@dataclass(frozen=True)
class Result:
    """What came of one contract.

    Attributes:
        contract: its name.
        state: whether it holds.
        reason: why not, on one line with the values; empty where it holds.
    """

    contract: str
    state: State
    reason: str = ""


def contract(name: str) -> Contract:
    """The contract of that name.

    Raises:
        InputError: there is none.
    """
    if name not in CONTRACTS:
        raise InputError(f"there is no contract {name!r}: choose {', '.join(CONTRACTS)}")
    return CONTRACTS[name]


def check(name: str, unpruned: nn.Module, pruner: Prune, example_inputs: Inputs, keep: Keep | None = None) -> None:
    """Holds a pruner to one contract on one network.

    Args:
        name: of :data:`CONTRACTS`.
        unpruned, pruner, example_inputs, keep: see :func:`seqprune.testing.trial.trial`.

    Raises:
        ContractError: it does not hold, or one that it rests on does not; its ``contract`` names the one.
        NotApplicable: it has nothing to ask of this network.
        InputError: the network cannot be traced, or there is no such contract.
    """
    asked = trial(unpruned, pruner, example_inputs, keep)
    for each in (*needed(name), name):
        try:
            CONTRACTS[each].check(asked)
        except NotApplicable:
            if each == name:
                raise


def needed(name: str) -> tuple[str, ...]:
    """The contracts that one rests on, first things first."""
    found: dict[str, None] = {}
    for each in contract(name).requires:
        found |= dict.fromkeys((*needed(each), each))
    return tuple(found)


def results(
    asked: Trial,
    names: Collection[str] = tuple(CONTRACTS),
    own: bool = False,
    known: Mapping[str, State] | None = None,
) -> Iterator[Result]:
    """What comes of contracts, one after another.

    Args:
        asked: the trial.
        names: of the contracts; those that they rest on are asked before, and told too.
        own: whether the pruner chooses the channels itself.
        known: what came of some of them already; they are not asked again.
    """
    wanted = {each for name in names for each in (*needed(name), name)}
    states: dict[str, State] = dict(known or {})
    for name in (each for each in CONTRACTS if each in wanted and each not in states):
        result = _result(asked, CONTRACTS[name], states, own)
        states[name] = result.state
        yield result


def _result(asked: Trial, each: Contract, states: dict[str, State], own: bool) -> Result:
    if own and not each.own:
        return Result(each.name, "not applicable", "the pruner chooses the channels itself")
    broken = [name for name in each.requires if states[name] in BROKEN]
    if broken:
        return Result(each.name, "blocked", f"rests on {broken[0]}")
    if any(states[name] == "not applicable" for name in each.requires):
        return Result(each.name, "not applicable", f"so is {each.requires[0]}")
    try:
        each.check(asked)
    except ContractError as error:
        return Result(each.name, "fails", error.message)
    except NotApplicable as nothing:
        return Result(each.name, "not applicable", str(nothing))
    except FAILS as error:
        return Result(each.name, "fails", first_line(error))
    return Result(each.name, "holds")
