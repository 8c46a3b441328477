"""Writes the table of versions in CONTRIBUTING.md from what tox left behind.

``tox`` leaves a JUnit file an environment; ``python scripts/versions.py`` reads those of ``.tox/*/tmp/junit.xml`` (or
of the folder named) and puts date, counts and versions between the marks. An environment of ``tox.ini`` that left none
keeps its row, with the date that it has, or has one that says so; those that tox no longer knows go.
"""

from __future__ import annotations

import configparser
import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

from seqprune.testing.tables import between, markdown

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "CONTRIBUTING.md"
NAME = "versions"
HEAD = ("environment", "date", "seen", "took", "with")
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


def environments(file: Path) -> list[str]:
    """Those of a ``tox.ini`` that leave a JUnit file, in its order."""
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(file, encoding="utf-8")
    names = tox["tox"]["env_list"].replace(",", " ").split()
    homes = {name: f"testenv:{name}" if f"testenv:{name}" in tox else "testenv" for name in names}
    return [name for name in names if "--junitxml" in tox[homes[name]].get("commands", "")]


def kept(page: str) -> dict[str, list[str]]:
    """Rows of the table that a page has, by environment."""
    lines = page.partition(f"<!-- {NAME} -->")[2].partition(f"<!-- end of {NAME} -->")[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `")]
    return {row[0].strip("`"): row for row in rows if len(row) == len(HEAD)}


def table(folder: Path, names: list[str], page: str = "") -> str:
    """A row for each environment: as it was seen now, else as the page has it, else not at all.

    Args:
        folder: ``.tox``.
        names: of the environments.
        page: with an older table.

    Raises:
        ValueError: none left a file.
    """
    files = {name: folder / name / "tmp" / "junit.xml" for name in names}
    if not any(file.exists() for file in files.values()):
        raise ValueError(f"{folder} has no */tmp/junit.xml of {', '.join(names)}: run tox first")
    older = kept(page)
    lines = [list(HEAD)]
    for name, file in files.items():
        if file.exists():
            has = versions(folder / name)
            with_ = ", ".join(f"{each} {has[each]}" for each in SHOWN if each in has)
            lines.append([f"`{name}`", *counts(file), with_])
        else:
            lines.append(older.get(name, [f"`{name}`", "", "not run", "", ""]))
    return markdown(lines)


def main(folder: Path, page: Path = PAGE, tox: Path = ROOT / "tox.ini") -> None:
    """Puts the table into a page."""
    text = page.read_text(encoding="utf-8")
    page.write_text(between(text, NAME, table(folder, environments(tox), text)), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / ".tox")
