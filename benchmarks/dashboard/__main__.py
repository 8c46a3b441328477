"""``python -m benchmarks.dashboard HISTORY_DIR --out site/`` writes ``site/index.html``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.compare import THRESHOLD, threshold
from benchmarks.dashboard.page import page
from benchmarks.dashboard.series import model
from benchmarks.history import HistoryError, load


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit codes: 0, or 2 where the history cannot be read or the page not written."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dashboard", description="Draw a history of runs.")
    parser.add_argument("history", type=Path, help="folder of pytest-benchmark JSON files")
    parser.add_argument("--out", type=Path, default=Path("site"), help="folder of the page (%(default)s)")
    parser.add_argument("--threshold", type=threshold, default=THRESHOLD, help="of a regression (%(default)s)")
    options = parser.parse_args(arguments)
    try:
        text = page(model(load(options.history), options.threshold))
        options.out.mkdir(parents=True, exist_ok=True)
        target = options.out / "index.html"
        target.write_text(text, encoding="utf-8", errors="replace")
    except (HistoryError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(f"{target}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
