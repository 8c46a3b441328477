"""Of a checkpoint's training arguments, what may be taken on: numbers, and words of a list."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ultralytics.utils import DEFAULT_CFG_DICT

from seqprune.plain import is_number

_WORDS: dict[str, str] = {
    "task": "detect|segment|pose|obb|classify",
    "mode": "train",
    "split": "train|val|test|minival",
    "optimizer": "auto|SGD|Adam|AdamW|Adamax|NAdam|RAdam|RMSProp|MuSGD|Muon",
    "auto_augment": "randaugment|autoaugment|augmix",
    "copy_paste_mode": "flip|mixup",
    "cache": "ram",
    "device": r"cpu|mps|(cuda:)?\d{1,2}(,\d{1,2}){0,15}",
}
_MOST: dict[str, float] = {"imgsz": 8192, "batch": 8192, "workers": 64, "epochs": 100_000, "patience": 100_000}
# Not what was trained, but where, or with which help: the command line's to say.
_NEVER = frozenset(
    "augmentations cfg compile data distill_model exist_ok model name pretrained profile project resume save_dir "
    "source tracker".split()
)


def plain_settings(given: Mapping[Any, Any]) -> dict[str, Any]:
    """The arguments that are plain: no path, no name of a file, nothing that would be run."""
    return {key: value for key, value in given.items() if _is_plain(key, value)}


def _is_plain(key: Any, value: Any) -> bool:
    if key not in DEFAULT_CFG_DICT or key in _NEVER:
        return False
    if isinstance(value, str):
        return key in _WORDS and re.fullmatch(_WORDS[key], value) is not None
    if isinstance(value, list | tuple):
        return len(value) <= 10_000 and all(_is_number(key, part) for part in value)
    return value is None or _is_number(key, value)


def _is_number(key: str, value: Any) -> bool:
    most = _MOST.get(key, 1e6)
    return isinstance(value, bool) or is_number(value, -most, most)


def numbers_of(given: Mapping[Any, Any]) -> dict[str, Any]:
    """The entries that are numbers or truth values."""
    return {
        key: value
        for key, value in given.items()
        if isinstance(key, str) and (isinstance(value, bool) or is_number(value, float("-inf"), float("inf")))
    }
