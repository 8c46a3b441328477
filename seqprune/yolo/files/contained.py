"""Ultralytics without its side effects, and its failures on one line."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from seqprune.yolo.files.outside import unchanged

_LONGEST = 300


@contextmanager
def contained() -> Iterator[None]:
    """Run Ultralytics quietly, without font downloads, without installing packages, in this process alone.

    What it reads meanwhile, it reads as data; see :mod:`seqprune.yolo.files.guard`.

    Ultralytics fetches a plotting font whenever it reads a dataset YAML, installs whatever package a
    checkpoint's pickle names, reports progress on the console, and under ``torchrun`` has its validator wait for
    the other processes. None of that is wanted inside a library call. Everything is put back at the end, and what
    Ultralytics changes by itself too (:mod:`seqprune.yolo.files.outside`); the switches are global, so this is not for
    concurrent threads.
    """
    from ultralytics.data import utils as data_utils
    from ultralytics.engine import validator
    from ultralytics.models.yolo.classify import val as classes
    from ultralytics.models.yolo.detect import val as boxes
    from ultralytics.utils import LOGGER, checks

    from seqprune.yolo.files.guard import guarded

    with ExitStack() as stack:
        stack.enter_context(unchanged())
        stack.enter_context(guarded())
        stack.enter_context(replaced(data_utils, "check_font", _no_font))
        stack.enter_context(replaced(checks, "AUTOINSTALL", False))
        for module in (validator, boxes, classes):
            for rank in ("RANK", "LOCAL_RANK"):
                stack.enter_context(replaced(module, rank, -1))
        level = LOGGER.level
        stack.callback(LOGGER.setLevel, level)
        LOGGER.setLevel(logging.CRITICAL)  # above INFO also switches the progress bars off
        yield


@contextmanager
def replaced(owner: Any, name: str, value: object) -> Iterator[None]:
    """Give ``owner.name`` another value for a while, where it exists at all."""
    if not hasattr(owner, name):
        yield
        return
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def _no_font(font: str = "") -> None:
    """Stand in for the font check: nothing is plotted here."""


def one_line(error: BaseException | str) -> str:
    """An error's text on one line, without colours and symbols, at most 300 characters."""
    text = str(error) or type(error).__name__
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    text = re.sub(r"[^\x20-\x7e\s\u00a1-\u024f]", "", text)
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
