"""What the owner of a module can state of it, where a trace cannot see it: widths, stand-ins, rules.

All three are stated once, before a network is traced, and hold for the class and for its subclasses, as far as these
do not run other code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from seqprune.errors import InputError
from seqprune.graph import widths
from seqprune.graph.rules.table import rule
from seqprune.graph.standins import STANDINS
from seqprune.graph.standins.operators import watched


def _name_of(kind: type[nn.Module]) -> str:
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise InputError(f"{kind!r} is no class of modules: give the class, as in register_widths(MyBlock, …)")
    return f"{kind.__module__}.{kind.__qualname__}"


def register_widths(kind: type[nn.Module], **attributes: str | tuple[str, int]) -> None:
    """States that attributes of a module hold how many channels a layer in it makes.

    Args:
        kind: the module's class.
        attributes: by attribute the path of the layer in the module, or that and a divisor:
            ``register_widths(MyBlock, width="cv1", half=("cv1", 2))`` means ``half == cv1.out_channels // 2``.

    Raises:
        InputError: no class of modules, or no such pair.
    """
    facts = {name: (fact, 1) if isinstance(fact, str) else fact for name, fact in attributes.items()}
    for name, fact in facts.items():
        if not (isinstance(fact, tuple) and len(fact) == 2 and isinstance(fact[0], str) and type(fact[1]) is int):
            raise InputError(f"{name}={fact!r} names no layer: give its path, or (path, divisor)")
    widths.register({_name_of(kind): facts})


def register_standin(kind: type[nn.Module], forward: Callable[..., Any]) -> None:
    """States what a trace runs in the place of a module's ``forward``; the network that is pruned keeps its own code.

    Args:
        kind: the module's class.
        forward: takes what ``forward`` takes and computes the same, in calls that have rules.
    """
    STANDINS[_name_of(kind)] = forward


register_rule = rule
"""States where an operator's channels go; see :mod:`seqprune.graph.rules.table` for what a rule is given."""

operator = watched
"""Decorates a function so that a trace sees its call as one, by its name, and asks for its rule."""
