"""What libraries print past Python: on the descriptors of the process, not on ``sys.stdout``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager


@contextmanager
def hushed() -> Iterator[None]:
    """Programs that exporters start report on the terminal: nobody sees it."""
    with open(os.devnull, "w") as nowhere, _moved(nowhere.fileno(), 1, 2):
        yield


@contextmanager
def said_aside() -> Iterator[None]:
    """On the standard error: gloo of torch 2.8 tells of connections on the other, and ``--json`` is one document."""
    with _moved(2, 1):
        yield


@contextmanager
def _moved(to: int, *numbers: int) -> Iterator[None]:
    sys.stdout.flush()
    sys.stderr.flush()
    with ExitStack() as stack:
        for number in numbers:
            kept = os.dup(number)
            stack.callback(os.close, kept)
            stack.callback(os.dup2, kept, number)
            os.dup2(to, number)
        yield
