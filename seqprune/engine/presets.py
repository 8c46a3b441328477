"""Presets, and what a caller changes in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from seqprune.budget.criteria import CRITERIA, FROM_IMAGES, FROM_LABELS
from seqprune.budget.target import Target
from seqprune.engine.steps import Settings
from seqprune.errors import InputError
from seqprune.plain import is_count
from seqprune.repair.recover import STEPS, Recover

WHOLE = ("accurate", "fast")
"""Presets that prune the whole network to a target."""
ACTIVATION = "activation"
"""A few layers, front to back, by what their channels do at objects."""
PRESETS = (ACTIVATION, *WHOLE)
ALIASES = {"seed": ACTIVATION}
"""What presets were called before; runs and scripts that say so go on."""
TARGET = "params=0.8"
CRITERION = "lamp"
"""Of preset ``fast``: under one threshold it kept the most of all that need no image, see ``docs/results.md``."""
MOVES = ("channels", "factors", "blocks", "size")
"""What preset ``accurate`` may do: take channels out, make a convolution of two, leave blocks out whole, take smaller
images."""
CHANNELS = ("channels",)
"""What the other presets do."""
BY = ("channels", "factors")
"""Of preset ``accurate`` where no moves are named: they kept the most, see ``docs/results.md``. Smaller images come to
them where time counts and no size was asked for (:mod:`seqprune.yolo.task.subject`)."""
ROUND_TO = 8
"""Channel counts under a keep ratio or a target are rounded up to a multiple of this: odd counts were seen to run
slower than the unpruned layer. A knee is left as it comes."""


@dataclass(frozen=True)
class Way:
    """Which engine runs, and what is repaired after it.

    Attributes:
        target: what the whole network is pruned to; ``None`` where layers are pruned front to back.
        recover: see :mod:`seqprune.repair.recover`.
        criterion: scores the channels of the whole network; ``None`` where it is not chosen by scores.
        by: moves that are allowed, of ``MOVES``.
    """

    target: Target | None
    recover: Recover
    criterion: str | None = None
    by: tuple[str, ...] = CHANNELS

    @property
    def by_time(self) -> bool:
        return self.target is not None and self.target.kind == "latency"

    @property
    def looks_at_images(self) -> bool:
        """Whether anything is chosen or repaired by them."""
        return self.criterion is None or self.criterion in FROM_IMAGES or self.recover != "none"

    @property
    def asks_for_labels(self) -> bool:
        """Whether what is chosen depends on the objects in the images."""
        return self.target is None or self.criterion in FROM_LABELS

    @property
    def weighs_errors(self) -> bool:
        """Whether it has to be known where they matter to what is detected."""
        chooses = self.target is not None and self.target.share < 1 and self.criterion is None
        return chooses or self.recover == "ls"


UNASKED = (
    "no preset and no target: preset activation takes about half of the channels of a few layers, and most of the "
    "accuracy with them until the network is fine-tuned (finetune=20); to keep most of it without training give a "
    "target, as target=flops=0.8 (preset accurate)"
)
"""Said where neither was given."""


def preset_of(preset: str | None, target: str | None = None, criterion: str | None = None) -> str:
    """The preset that is meant: a target is met by ``accurate``, or by a criterion with ``fast``.

    Args:
        preset: as it was given; ``None`` where it was not.
        target, criterion: the same; they decide only where no preset was given.
    """
    if preset is not None:
        return ALIASES.get(preset, preset) if isinstance(preset, str) else preset
    return "fast" if criterion is not None else "accurate" if target is not None else ACTIVATION


def way_of(
    preset: str,
    target: str | None,
    recover: str | None,
    protect: Sequence[str],
    criterion: str | None = None,
    by: Sequence[str] | None = None,
) -> Way:
    """
    Args:
        preset, target, recover, protect, criterion: as a caller gives them.
        by: moves; those of the preset where left out.

    Raises:
        InputError: words that are not known, or that do not go together.
    """
    if preset not in WHOLE and (target is not None or protect):
        raise InputError(f"preset {preset} prunes a few layers to no target: take --preset accurate or fast")
    if preset != "fast" and criterion is not None:
        raise InputError(f"preset {preset} chooses by no criterion: take --preset fast")
    if by is None:
        by = BY if preset == "accurate" else CHANNELS
    if preset != "accurate" and tuple(by) != CHANNELS:
        raise InputError(
            f"preset {preset} takes channels out and does nothing else: take --preset accurate, or leave out by"
        )
    if not by or any(move not in MOVES for move in by):
        raise InputError(f"by={','.join(by)!r} is not known: choose of {', '.join(MOVES)}")
    chosen = recover or ("ls" if preset == "accurate" else "none")
    if chosen not in STEPS:
        raise InputError(f"recover={chosen!r} is not known: choose {', '.join(STEPS)}")
    if (scores := criterion or CRITERION) not in CRITERIA:
        raise InputError(f"there is no criterion {scores!r}: choose {', '.join(CRITERIA)}")
    return Way(
        Target.parse(TARGET if target is None else target) if preset in WHOLE else None,
        cast(Recover, chosen),
        scores if preset == "fast" else None,
        tuple(move for move in MOVES if move in by),
    )


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
    if preset in WHOLE and (keep, represent, match) != (None, None, None):
        raise InputError(f"preset {preset} chooses from no clusters: leave out keep, represent and match")
    allowed = {"represent": ("weight", "medoid", "gamma"), "match": ("once", "each", "all")}
    given = {"keep": keep, "represent": represent, "match": match, "round_to": round_to, "seed": seed}
    given = {name: value for name, value in given.items() if value is not None}
    if round_to is None and (isinstance(keep, float) or preset in WHOLE):
        given["round_to"] = ROUND_TO
    if not is_count(seed, 0, 2**32 - 1):  # as NumPy's generators and t-SNE take them
        raise InputError(f"seed={seed!r}: give a whole number, 0 or more and less than 2 ** 32")
    for name, values in allowed.items():
        if name in given and given[name] not in values:
            raise InputError(f"{name}={given[name]!r} is not known: choose {', '.join(values)}")
    if isinstance(keep, str) and keep not in ("knee", "interpolated-knee"):
        raise InputError(f"keep={keep!r} is not known: choose knee, interpolated-knee or a ratio in (0, 1]")
    return Settings(**given)  # type: ignore[arg-type]
