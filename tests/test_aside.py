"""What a library prints past Python lands where it was sent, and the descriptors come back."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress

import pytest

from seqprune.aside import hushed, said_aside

Aside = Callable[[], AbstractContextManager[None]]


@pytest.mark.parametrize(
    ("where", "out", "err"), [(hushed, "before after", ""), (said_aside, "before after", "meanwhile ")]
)
@pytest.mark.parametrize("fails", [False, True])
def test_what_is_printed_past_python(
    where: Aside, out: str, err: str, fails: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    os.write(1, b"before ")
    with suppress(ZeroDivisionError), where():
        os.write(1, b"meanwhile ")
        if fails:
            raise ZeroDivisionError
    os.write(1, b"after")
    assert capfd.readouterr() == (out, err)


def test_what_python_still_holds_back_is_not_moved(capfd: pytest.CaptureFixture[str]) -> None:
    sys.stdout.write("before")
    with hushed():
        pass
    assert capfd.readouterr().out == "before"
