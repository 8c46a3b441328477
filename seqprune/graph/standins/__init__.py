"""Modules whose code computes with channel counts, told again in operators that have a rule.

An attention block cuts its channels by ``self.num_heads``; a channel shuffle divides ``x.size(1)``. What becomes of
such numbers cannot be seen from outside, so the trace would pin all that comes near. For a few modules, by
class, the traced copy runs a stand-in: it computes the same from the same submodules, and says with operators of
:mod:`seqprune.graph.standins.operators` what the module's own code needs of its channel counts. The model that is
pruned keeps its own code. A module that was given another ``forward`` is traced as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

from torch import nn

from seqprune.graph.standins import torchvision, ultralytics

StandIn = Callable[..., Any]

STANDINS: dict[str, StandIn] = torchvision.STANDINS | ultralytics.STANDINS
"""Qualified class name -> the function that runs in the place of its ``forward``."""


def standin_for(module: nn.Module) -> StandIn | None:
    """That of the module's class, or of a base whose ``forward`` it runs; none where it was given another one."""
    if "forward" in vars(module):
        return None
    for kind in type(module).__mro__:
        if (found := STANDINS.get(f"{kind.__module__}.{kind.__qualname__}")) is not None:
            return found if getattr(kind, "forward", None) is type(module).forward else None
    return None


@contextmanager
def standing_in(modules: Iterable[tuple[nn.Module, StandIn]]) -> Iterator[None]:
    """While this lasts, these modules run their stand-ins."""
    pairs = list(modules)
    for module, function in pairs:
        module.__dict__["forward"] = MethodType(function, module)
    try:
        yield
    finally:
        for module, _ in pairs:
            del module.__dict__["forward"]
