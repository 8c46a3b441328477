"""Importing the room costs nothing until it is used; Ultralytics is quietened and put back."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest
from ultralytics.data import utils as data_utils
from ultralytics.utils import LOGGER, checks

import seqprune.yolo
from seqprune.yolo.files.contained import contained, one_line


def test_importing_the_package_does_not_import_ultralytics() -> None:
    code = "import sys, seqprune.yolo; sys.exit('ultralytics' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0  # noqa: S603


def test_every_public_name_is_found() -> None:
    for name in seqprune.yolo.__all__:
        assert getattr(seqprune.yolo, name).__class__ is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = seqprune.yolo.nothing


def test_ultralytics_is_put_back_after_an_error() -> None:
    def state() -> tuple[object, ...]:
        return LOGGER.level, checks.AUTOINSTALL, data_utils.check_font

    before = state()
    inside: list[tuple[object, ...]] = []

    def fail() -> None:
        with contained():
            inside.append(state())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert inside[0][0] > logging.INFO
    assert inside[0][1] is False
    assert state() == before


def test_error_text_is_one_plain_line() -> None:
    assert one_line(ValueError("\x1b[31mred\x1b[0m ❌\n  second")) == "red second"
    assert one_line(KeyError()) == "KeyError"
    assert len(one_line("x" * 1000)) == 300
