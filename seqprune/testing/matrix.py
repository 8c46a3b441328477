"""``python -m seqprune.testing.matrix``: pruner × architecture × contract, as Markdown and as a page.

Each row is kept as it comes; a run that was ended goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path

from seqprune.atomic import write_text
from seqprune.errors import SeqPruneError
from seqprune.testing.cases import Prepared, preload
from seqprune.testing.contracts import CONTRACTS, Result
from seqprune.testing.process import Limits
from seqprune.testing.pruners import PRUNERS, pruner
from seqprune.testing.tables import (
    Row,
    between,
    by_contract,
    by_network,
    cell_text,
    markdown,
    page,
    reason_lines,
    versions,
)

TIMM = (
    "resnet18 resnest14d regnetx_002 efficientnet_lite0 mobilenetv3_small_050 ghostnet_050 hardcorenas_a densenet121 "
    "dla46_c legacy_seresnet18 hrnet_w18_small selecsls42 ese_vovnet19b_dw rexnet_100 repvgg_a0 repghostnet_050 "
    "convnext_atto edgenext_xx_small mobilevit_xxs fasternet_t0 inception_v3 res2net50_14w_8s starnet_s1 "
    "efficientvit_b0 poolformer_s12 xception41 darknet17 skresnet18 dpn48b vit_tiny_patch16_224"
).split()
"""One small network each of thirty of timm's modules. VGG's is not small: it asks for more than six gigabytes."""
LAYERS = 6
"""That are pruned alone, from the front to the back."""
NAME = "matrix"


def networks(asked: str) -> list[str]:
    """Names of networks: ``detect`` and ``timm`` stand for lists.

    Args:
        asked: names with commas between.
    """
    found: list[str] = []
    for name in asked.split(","):
        if name == "detect":
            from seqprune.yolo.files.zoo import smallest_detectors

            found += smallest_detectors()
        elif name == "timm":
            found += [f"timm:{each}" for each in TIMM]
        elif name:
            found.append(name)
    return found


def measured(
    pruner_name: str, network: Prepared, folder: Path, seen: dict[str, str], *, ask: bool = True
) -> Row | None:
    """One row: read where an earlier run of the same versions and limits left it, else asked, where that is allowed."""
    name = network.subject
    path = folder / "rows" / pruner_name.replace(":", "_") / f"{name.replace(':', '_').replace('/', '_')}.json"
    settings = {"versions": seen, "limits": asdict(network.limits), "contracts": list(CONTRACTS)}
    if path.exists():
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["settings"] == settings:
            return Row(pruner_name, name, {r["contract"]: Result(**r) for r in kept["results"]}, kept["seconds"])
    if not ask:
        return None
    before = network.seconds
    results = network.cell(pruner_name)
    row = Row(pruner_name, name, results, round(network.seconds - before, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"settings": settings, "seconds": row.seconds, "results": [asdict(r) for r in results.values()]}
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False))
    return row


def matrix(
    pruners: Sequence[str], subjects: Sequence[str], folder: Path, limits: Limits, jobs: int = 2, until: float = 1e18
) -> list[Row]:
    """Every pruner on every network; what they are compared with is made once a network.

    Args:
        pruners, subjects: names.
        folder: where rows are kept.
        limits: of each process.
        jobs: networks side by side.
        until: the time, as ``time.monotonic()`` tells it, after which no more rows are begun.
    """
    seen = versions()
    preload(ultralytics=any(":" not in name for name in subjects))

    def of(subject: str) -> list[Row]:
        found = []
        with Prepared(subject, limits) as network:
            for name in pruners:
                row = measured(name, network, folder, seen, ask=time.monotonic() < until)
                if row is not None:
                    found.append(row)
                    sys.stderr.write(f"{row.subject} {row.pruner}: {cell_text(row)} ({row.seconds:.0f} s)\n")
        return found

    with ThreadPoolExecutor(jobs) as pool:
        return [row for rows in pool.map(of, subjects) for row in rows]


def summary(rows: Iterable[Row], pruners: Sequence[str], command: str, left: int = 0) -> tuple[str, str]:
    """The matrix as Markdown and as a page.

    Args:
        rows, pruners: what was measured.
        command: that made it.
        left: rows that the time was too short for.
    """
    rows = list(rows)
    when = datetime.now(timezone.utc).date().isoformat()
    libraries = ", ".join(f"{name} {version}" for name, version in versions().items())
    spent = sum(row.seconds for row in rows) / 60
    about = f"Made by {command} on {when}; {libraries}. {len(rows)} rows, {spent:.0f} minutes of processor time."
    about += f" {left} rows are left: their cells are empty, and the same command goes on." if left else ""
    tables = {
        "By contract": by_contract(rows, pruners),
        "By network": by_network(rows, pruners),
        "Reasons": reason_lines(rows, pruners),
    }
    text = [about.replace(command, f"`{command}`")]
    for heading, lines in tables.items():
        text += [f"### {heading}", markdown(lines)]
    return "\n\n".join(text), page("Pruners, networks, contracts", about, tables)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command.

    Returns:
        1 where a pruner that is no peer does not hold what is expected of it.
    """
    parser = argparse.ArgumentParser(prog="python -m seqprune.testing.matrix", description=__doc__)
    parser.add_argument("--pruners", default=",".join(PRUNERS), help="names with commas between")
    parser.add_argument("--models", default="detect,timm", help="names with commas between; detect and timm are lists")
    parser.add_argument("--out", type=Path, default=Path("runs/matrix"), help="folder of rows and of the page")
    parser.add_argument("--write", type=Path, help="Markdown file with the marks <!-- matrix --> to write it into")
    parser.add_argument("--seconds", type=float, default=60.0, help="of processor time for each process")
    parser.add_argument("--memory", type=float, default=6.0, help="gigabytes for each process")
    parser.add_argument("--jobs", type=int, default=2, help="networks side by side")
    parser.add_argument("--minutes", type=float, default=60.0, help="after which no more rows are begun; run it again")
    given = parser.parse_args(arguments)
    names = given.pruners.split(",")
    try:
        tried = [pruner(name) for name in names]
        subjects = networks(given.models)
    except SeqPruneError as error:
        parser.error(str(error))
    limits = Limits(given.seconds, given.memory, LAYERS)
    rows = matrix(names, subjects, given.out, limits, given.jobs, time.monotonic() + 60 * given.minutes)
    shown = [a for a in (arguments or sys.argv[1:]) if a]
    left = len(names) * len(subjects) - len(rows)
    text, html = summary(rows, names, " ".join(("python -m seqprune.testing.matrix", *shown)), left)
    given.out.mkdir(parents=True, exist_ok=True)
    write_text(given.out / "matrix.md", text + "\n")
    write_text(given.out / "matrix.html", html)
    if given.write:
        write_text(given.write, between(given.write.read_text(encoding="utf-8"), NAME, text))
    if left:
        sys.stderr.write(f"{left} rows are left: the same command goes on\n")
    held = {each.name: each for each in tried if not each.peer}
    wrong = [row for row in rows if row.pruner in held and not {*row.failed} <= {*held[row.pruner].expected}]
    for row in wrong:
        sys.stderr.write(f"{row.subject} {row.pruner}: {', '.join(row.failed)} must hold\n")
    return 1 if wrong or left else 0


if __name__ == "__main__":
    sys.exit(main())
