"""Signals that end a run: within two seconds, with a line that says how to go on."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
PATIENCE = 1.5
"""Seconds until a process that has not ended by itself is ended from beside."""


class Stopped(BaseException):
    """A signal other than Ctrl-C's asked the process to end.

    Attributes:
        code: exit code, 128 and the number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.code = 128 + number


class Interrupted(KeyboardInterrupt):
    """Ctrl-C while there is something to go on from."""


@contextmanager
def interruptible(how: str) -> Iterator[None]:
    """While this lasts, SIGTERM and SIGHUP raise :class:`Stopped`, and no signal waits for a long operation.

    Args:
        how: a line that says how to go on; empty where nobody can.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reached = threading.Event()

    def stop(number: int, _frame: FrameType | None) -> None:
        reached.set()
        raise Interrupted if number == signal.SIGINT else Stopped(number)

    before = {number: signal.signal(number, stop) for number in (*SIGNALS, signal.SIGINT)}
    read, write = os.pipe()
    os.set_blocking(write, False)
    wakeup = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    watch = threading.Thread(target=_watch, args=(read, reached, how), daemon=True)
    watch.start()
    try:
        yield
    except (Interrupted, Stopped):
        _say(how)
        raise
    finally:
        signal.set_wakeup_fd(wakeup)
        os.close(write)  # which ends the watch
        for number, handler in before.items():
            signal.signal(number, handler)


def _watch(read: int, reached: threading.Event, how: str) -> None:
    """Ends the process where a signal came and it has not ended by itself in time.

    It may be inside an operation that Python's own handler waits for, or take long to leave: a busy machine, many
    threads. What it kept is whole at any time.
    """
    ours = {int(number) for number in (*SIGNALS, signal.SIGINT)}
    while data := os.read(read, 1):
        if data[0] not in ours:
            continue
        deadline = time.monotonic() + PATIENCE
        if not reached.wait(PATIENCE):
            _say(how)
        time.sleep(max(0.0, deadline - time.monotonic()))
        os._exit(128 + data[0])
    os.close(read)


def leave(code: int) -> NoReturn:
    """Ends the process that a signal interrupted: without what Python tears down last, which takes seconds."""
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _say(how: str) -> None:
    if how:
        sys.stderr.write(f"{how}\n")
        sys.stderr.flush()
