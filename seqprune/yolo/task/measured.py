"""Which images an accuracy was measured on: two accuracies can be compared where these are the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seqprune.errors import ChangedError


@dataclass(frozen=True)
class Images:
    """Those of one measurement.

    Attributes:
        used: paths, in order.
        unreadable: names of those left out: they, or their labels, cannot be read.
    """

    used: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()

    @classmethod
    def of(cls, dataset: Any) -> Images:
        """Those of one of our data sets; as with training images, those of classes are named with their folder."""
        root = getattr(dataset, "root", None)
        left_out = (Path(file) for file, _ in dataset.left_out)
        names = (file.name if root is None else str(file.relative_to(root)) for file in left_out)
        return cls(tuple(map(str, dataset.im_files)), tuple(names))


NO_IMAGES = Images()


class SameImages:
    """Holds all measurements of a run to the images of the first.

    Args:
        warn: told of images that cannot be read, once.
    """

    def __init__(self, warn: Callable[[str], None]) -> None:
        self.warn = warn
        self.first: Images | None = None

    @property
    def unreadable(self) -> tuple[str, ...]:
        """What was left out of the measurements."""
        return self.first.unreadable if self.first else ()

    def check(self, now: Images) -> None:
        """
        Raises:
            ChangedError: these are not the images of the first measurement.
        """
        if self.first is None:
            self.first = now
            if now.unreadable:
                self.warn(
                    f"left out as unreadable of the images that accuracy is measured on, {len(now.unreadable)}: "
                    f"{', '.join(now.unreadable[:5])}"
                )
        elif changed := sorted(set(now.used) ^ set(self.first.used)):
            gone = len(set(self.first.used) - set(now.used))
            raise ChangedError(
                f"accuracy was measured on {len(self.first.used)} images before and on {len(now.used)} after: {gone} "
                f"gone or unreadable, {len(changed) - gone} new, such as {changed[0]}; their difference would mean "
                "nothing: leave the images alone while a run goes on, and start it again"
            )
