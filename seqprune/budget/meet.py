"""A target in time is met by trying: what a price chose is measured, and chosen again by another share of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from seqprune.errors import TargetError

T = TypeVar("T")
NEAR, FAR = 0.02, 0.05
"""Of the target: so near it is not tried again, and farther above it is not met."""
ROUNDS = 6


def meet(
    choose: Callable[[float], T],
    measure: Callable[[T], float],
    target: float,
    rounds: int = ROUNDS,
    nearest: bool = False,
) -> T:
    """What measures nearest to a target.

    Args:
        choose: what should leave so large a share, by its price.
        measure: the share that it does leave.
        target: in (0, 1).
        rounds: of trying, at most.
        nearest: whether it may be far above.

    Raises:
        TargetError: nothing can be chosen or, without ``nearest``, whatever was tried leaves more than ``FAR`` above
            the target.
    """
    found: list[tuple[float, T]] = []
    share, low, high = target, 0.0, 1.0
    refused: TargetError | None = None
    for _ in range(rounds):
        try:
            made = choose(share)
        except TargetError as error:
            refused, low = error, max(low, share)
            share = (low + high) / 2
            continue
        left = measure(made)
        found.append((left, made))
        if abs(left / target - 1) <= NEAR:
            break
        low, high = (low, min(high, share)) if left > target else (max(low, share), high)
        # What is saved is nearly in proportion to what the price says is saved.
        aimed = 1 - (1 - target) * (1 - share) / (1 - left) if left < 1 else low
        share = aimed if low < aimed < high else (low + high) / 2
    if refused is not None and not found:
        raise refused
    left, made = min(found, key=lambda each: abs(each[0] / target - 1))
    if left > target * (1 + FAR) and not nearest:
        raise TargetError(
            f"latency={target:g} cannot be met, {left:.3f} of the time stays at the least: take a greater target "
            "(--target), protect less (--protect), or allow more moves (--by)"
        )
    return made
