"""The benchmarks lie beside the package, not in it; the end of the path keeps an installed ``seqprune`` first.

Where tests run side by side, each of them and what it starts has one thread: more would wait for each other.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, settings

NEEDED = 4 << 30
"""Bytes that a process which runs tests comes to take."""

sys.path.append(str(Path(__file__).resolve().parent))
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported

# How long an example takes says more of what else the machine does than of the code.
settings.register_profile("untimed", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def _own_activation() -> Iterator[None]:
    """Ultralytics before 8.4.190 gives the activation of one YAML to every network that is built after it."""
    yield
    if "ultralytics.nn.modules.conv" in sys.modules:
        from torch import nn

        vars(sys.modules["ultralytics.nn.modules.conv"])["Conv"].default_act = nn.SiLU()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """``-n auto``: as many as there are processors, if there is memory for them, or as xdist's own variable says."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    memory: int = psutil.virtual_memory().total
    return max(1, min(psutil.cpu_count() or 1, memory // NEEDED))
