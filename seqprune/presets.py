"""Presets, and what a caller changes in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

from seqprune.errors import InputError
from seqprune.recover import STEPS, Recover
from seqprune.sequential import Settings
from seqprune.target import Target

PRESETS = {"seed": Settings(), "accurate": Settings()}
ACCURATE_TARGET = "params=0.8"
ROUND_TO = 8
"""Channel counts under a keep ratio are rounded up to a multiple of this: odd counts were seen to run slower than the
unpruned layer. A knee is left as it comes."""


@dataclass(frozen=True)
class Way:
    """Which engine runs, and what is repaired after it.

    Attributes:
        target: what the whole network is pruned to; ``None`` where layers are pruned front to back.
        recover: see :mod:`seqprune.recover`.
    """

    target: Target | None
    recover: Recover


def way_of(preset: str, target: str | None, recover: str | None, protect: Sequence[str]) -> Way:
    """
    Raises:
        InputError: words that are not known, or that do not go together.
    """
    accurate = preset == "accurate"
    if not accurate and (target is not None or protect):
        raise InputError(f"preset {preset} prunes a few layers to no target: take --preset accurate")
    chosen = recover or ("ls" if accurate else "none")
    if chosen not in STEPS:
        raise InputError(f"recover={chosen!r} is not known: choose {', '.join(STEPS)}")
    return Way(Target.parse(target or ACCURATE_TARGET) if accurate else None, cast(Recover, chosen))


def settings_of(
    preset: str,
    keep: str | float | None,
    represent: str | None,
    match: str | None,
    round_to: int | None,
    seed: int,
) -> Settings:
    """A preset with what the caller overrides.

    Raises:
        InputError: an unknown preset or value.
    """
    if preset not in PRESETS:
        raise InputError(f"there is no preset {preset!r}: choose {', '.join(PRESETS)}")
    allowed = {"represent": ("weight", "medoid", "gamma"), "match": ("once", "each", "all")}
    given = {"keep": keep, "represent": represent, "match": match, "round_to": round_to, "seed": seed}
    given = {name: value for name, value in given.items() if value is not None}
    if isinstance(keep, float) and round_to is None:
        given["round_to"] = ROUND_TO
    for name, values in allowed.items():
        if name in given and given[name] not in values:
            raise InputError(f"{name}={given[name]!r} is not known: choose {', '.join(values)}")
    if isinstance(keep, str) and keep not in ("knee", "interpolated-knee"):
        raise InputError(f"keep={keep!r} is not known: choose knee, interpolated-knee or a ratio in (0, 1]")
    return replace(PRESETS[preset], **given)  # type: ignore[arg-type]
