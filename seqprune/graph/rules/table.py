"""The table of per-operator rules, and what every rule is given.

A rule is a plain function ``rule(recorder, out, *args, **kwargs)`` with the arguments of the call as the
network made it; ``out`` is what the call returned. It records facts in the recorder and returns the
:class:`Value` of ``out`` (a list of them where ``out`` is a list), or raises :class:`NoRule` where this use of the
operator is not covered: the operator is then a barrier. A rule is called only when an argument depends on
the network's input, and, unless registered with ``opaque=True``, only with channels that were followed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

from seqprune.graph.values import NoRule, Value

Rule = Callable[..., Value | list[Value]]


RULES: dict[str, Rule] = {}
TAKES_OPAQUE: set[str] = set()
DIMS: dict[str, range] = {}
"""Operator -> how many dimensions the tensor may have that its rule is for."""

ANY = range(65)
"""Of a rule for tensors of any number of dimensions: element-wise, or its dimensions stand in the call."""


def rule(*names: str, dims: range | int, opaque: bool = False) -> Callable[[Rule], Rule]:
    """Registers a function for operators by their name in torch, without underscores for in-place forms.

    Args:
        names: the operators.
        dims: numbers of dimensions of the first tensor that the rule is for. A 2d pooling of three dimensions
            pools channels: with any other number the operator is a barrier.
        opaque: whether it is called for tensors whose channels were lost as well.
    """

    def register(function: Rule) -> Rule:
        for name in names:
            RULES[name] = function
            DIMS[name] = range(dims, dims + 1) if isinstance(dims, int) else dims
            if opaque:
                TAKES_OPAQUE.add(name)
        return function

    return register


def check_dims(name: str, dims: int) -> None:
    """Raises :class:`NoRule` where an operator runs on a tensor of a number of dimensions its rule is not for."""
    known = DIMS[name]
    if dims not in known:
        many = f"{known[0]} to {known[-1]}" if len(known) > 1 else str(known[0])
        raise NoRule(f"runs on a tensor of {dims} dimensions, of {many} its channels are known")


@cache
def misfit(rule: Rule, places: int, names: tuple[str, ...]) -> str:
    """Why a rule cannot be called with so many arguments, and others of these names; empty where it can."""
    try:
        inspect.signature(rule).bind(*range(places), **dict.fromkeys(names))
    except TypeError as error:
        return str(error)
    return ""


def positive(dim: int, ndim: int) -> int:
    return dim + ndim if dim < 0 else dim


def require(condition: Any, reason: str) -> None:
    """Leaves the operator to the barrier unless ``condition`` holds."""
    if not condition:
        raise NoRule(reason)
