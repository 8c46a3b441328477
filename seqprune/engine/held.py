"""How far a network's outputs are from the unpruned one's, on images that nothing is fitted to."""

from __future__ import annotations

from collections.abc import Iterator

from seqprune.engine.engine import Engine
from seqprune.engine.task import Judge
from seqprune.observe.batch import Batch, LabelledImages


def judge_of(engine: Engine) -> Judge | None:
    """Less noisy than a loss by labels, and nought for the unpruned network; ``None`` where too few images are given to
    hold any out.
    """
    _, held = engine.task.images.hold_out()
    if held is None:
        return None
    return engine.task.judge(engine.original, _Unlabelled(held)) or engine.task.judge(engine.original, held)


class _Unlabelled:
    """Images of which a judge is told that nothing is labelled."""

    objects = 0

    def __init__(self, images: LabelledImages) -> None:
        self.images = images

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.images)

    def __len__(self) -> int:
        return len(self.images)
