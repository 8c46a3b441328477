"""The benchmarks lie beside the package, not in it; the end of the path keeps an installed ``seqprune`` first."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent))
