"""Writes the table of versions in CONTRIBUTING.md from what tox left behind.

``tox`` leaves a JUnit file an environment; ``python scripts/versions.py`` reads those of ``.tox/*/tmp/junit.xml`` (or
of the folder named) and puts date, counts and versions between the marks.
"""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

from seqprune.testing.tables import between, markdown

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "CONTRIBUTING.md"
NAME = "versions"
SHOWN = "python torch torchvision ultralytics numpy scikit-learn scipy kneed pytest".split()
ASK = (
    "import json, platform; from importlib import metadata as m; "
    "print(json.dumps({'python': platform.python_version()} | {d.metadata['Name'].lower(): d.version "
    "for d in m.distributions()}))"
)


def counts(file: Path) -> tuple[str, str, str]:
    """Date, what was seen, and the minutes it took, of one JUnit file.

    Raises:
        ValueError: the file holds no suite.
    """
    suites = list(ET.parse(file).getroot().iter("testsuite"))  # noqa: S314
    if not suites:
        raise ValueError(f"{file} holds no test suite: run tox again")
    number = {
        key: sum(int(suite.get(key, 0)) for suite in suites) for key in ("tests", "failures", "errors", "skipped")
    }
    bad = number["failures"] + number["errors"]
    parts = [f"{number['tests'] - bad - number['skipped']:,} passed"]
    parts += [f"**{bad} failed**"] if bad else []
    parts += [f"{number['skipped']} skipped"] if number["skipped"] else []
    seconds = sum(float(suite.get("time", 0)) for suite in suites)
    return suites[0].get("timestamp", "")[:10], ", ".join(parts), f"{seconds / 60:.0f} min"


def versions(environment: Path) -> dict[str, str]:
    """Of what an environment of tox holds, by name; empty where its Python is gone."""
    python = environment / "bin" / "python"
    if not python.exists():
        return {}
    said = subprocess.run([python, "-c", ASK], capture_output=True, text=True, check=True).stdout  # noqa: S603
    found: dict[str, str] = json.loads(said)
    return found


def table(folder: Path) -> str:
    """A row for each environment that left a file.

    Args:
        folder: ``.tox``.

    Raises:
        ValueError: none did.
    """
    lines = [["environment", "date", "seen", "took", "with"]]
    for file in sorted(folder.glob("*/tmp/junit.xml")):
        environment = file.parents[1]
        has = versions(environment)
        with_ = ", ".join(f"{name} {has[name]}" for name in SHOWN if name in has)
        date, seen, took = counts(file)
        lines.append([f"`{environment.name}`", date, seen, took, with_])
    if len(lines) == 1:
        raise ValueError(f"{folder} has no */tmp/junit.xml: run tox first")
    return markdown(lines)


def main(folder: Path, page: Path = PAGE) -> None:
    """Puts the table into a page."""
    page.write_text(between(page.read_text(encoding="utf-8"), NAME, table(folder)), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / ".tox")
