"""The table of per-operator rules, and what every rule is given.

A rule is a plain function ``rule(recorder, out, *args, **kwargs)`` with the arguments of the call as the
network made it; ``out`` is what the call returned. It records facts in the recorder and returns the
:class:`Value` of ``out`` (a list of them where ``out`` is a list), or raises :class:`NoRule` where this use of the
operator is not covered: the operator is then a barrier. A rule is called only when an argument depends on
the network's input, and, unless registered with ``opaque=True``, only with channels that were followed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from seqprune.graph.values import NoRule, Value

Rule = Callable[..., Value | list[Value]]


RULES: dict[str, Rule] = {}
TAKES_OPAQUE: set[str] = set()


def rule(*names: str, opaque: bool = False) -> Callable[[Rule], Rule]:
    """Registers a function for operators by their name in torch, without underscores for in-place forms."""

    def register(function: Rule) -> Rule:
        for name in names:
            RULES[name] = function
            if opaque:
                TAKES_OPAQUE.add(name)
        return function

    return register


def positive(dim: int, ndim: int) -> int:
    return dim + ndim if dim < 0 else dim


def require(condition: Any, reason: str) -> None:
    """Leaves the operator to the barrier unless ``condition`` holds."""
    if not condition:
        raise NoRule(reason)
