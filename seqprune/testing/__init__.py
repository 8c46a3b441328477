"""The suite that others run: on their model, on their pruner. See docs/conformance.md.

Importing this package imports nothing heavy: the pytest plugin lies in it, and is loaded in every run of pytest.
Random networks are ``seqprune.testing.strategies.networks``, a trial is ``seqprune.testing.trial.trial``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seqprune.testing.cases import cell
    from seqprune.testing.contracts import CONTRACTS, Contract, Result, check, results
    from seqprune.testing.networks import random_plan, randomise
    from seqprune.testing.outputs import difference, prepare
    from seqprune.testing.process import Limits
    from seqprune.testing.pruners import PRUNERS, Pruner, pruner, register
    from seqprune.testing.subjects import subject
    from seqprune.testing.trial import ContractError, NotApplicable

_HOME = {
    "CONTRACTS": "contracts",
    "Contract": "contracts",
    "ContractError": "trial",
    "Limits": "process",
    "NotApplicable": "trial",
    "PRUNERS": "pruners",
    "Pruner": "pruners",
    "Result": "contracts",
    "cell": "cases",
    "check": "contracts",
    "difference": "outputs",
    "prepare": "outputs",
    "pruner": "pruners",
    "random_plan": "networks",
    "randomise": "networks",
    "register": "pruners",
    "results": "contracts",
    "subject": "subjects",
}

__all__ = [
    "CONTRACTS",
    "PRUNERS",
    "Contract",
    "ContractError",
    "Limits",
    "NotApplicable",
    "Pruner",
    "Result",
    "cell",
    "check",
    "difference",
    "prepare",
    "pruner",
    "random_plan",
    "randomise",
    "register",
    "results",
    "subject",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
