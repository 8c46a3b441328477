"""The peak memory of this process alone.

``resource.getrusage(RUSAGE_SELF).ru_maxrss`` is no such thing: a child starts at its parent's peak, which the kernel
keeps over fork and exec, so beside a large test suite a leak does not show.
"""

from __future__ import annotations

from pathlib import Path

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
MEASURABLE = STATUS.exists() and CLEAR.exists()


def begin() -> None:
    """Count the peak from what is resident now."""
    CLEAR.write_text("5")


def peak() -> int:
    """Bytes that were resident at most since :func:`begin`."""
    return 1024 * next(int(line.split()[1]) for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
