"""The block structure of Ultralytics' networks, for streaming."""

from __future__ import annotations

from typing import Any

from torch import nn
from ultralytics.nn.tasks import BaseModel, RTDETRDetectionModel

from seqprune.observe.streaming import Blocks

# RT-DETR's differs in what it does with labels; that of networks with prompts gives them to blocks of its choice.
_BLOCK_AFTER_BLOCK = (BaseModel.predict, RTDETRDetectionModel.predict)


def blocks_of(model: nn.Module) -> Blocks | None:
    """Which block reads which, or ``None`` where the network does not run its blocks one after the other."""
    if not isinstance(model, BaseModel) or type(model)._predict_once is not BaseModel._predict_once:
        return None
    if type(model).predict not in _BLOCK_AFTER_BLOCK:
        return None
    modules: Any = model.model
    return Blocks(
        "model",
        tuple(tuple(_absolute(source, at) for source in _as_list(module.f)) for at, module in enumerate(modules)),
        tuple(isinstance(module.f, list) for module in modules),
    )


def _as_list(source: int | list[int]) -> list[int]:
    return source if isinstance(source, list) else [source]


def _absolute(source: int, at: int) -> int:
    """Negative sources count from the block that reads; block 0 reads the image."""
    return source if source >= 0 else at + source
