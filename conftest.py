"""The benchmarks lie beside the package, not in it; the end of the path keeps an installed ``seqprune`` first.

Where tests run side by side, each of them and what it starts has one thread: more would wait for each other.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent))
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported
