"""Writes docs/architectures.md: what can be pruned of every architecture, and how exactly.

``python scripts/architectures.py`` measures all of them, one process each, and takes some 20 minutes on two cores;
names as arguments measure those alone and print their rows.
"""

from __future__ import annotations

import multiprocessing
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests" / "support"), str(ROOT / "tests" / "architectures")]

import memory  # noqa: E402
import torch  # noqa: E402
import torchvision  # noqa: E402
import torchvision_zoo  # noqa: E402
import ultralytics  # noqa: E402
import ultralytics_zoo  # noqa: E402
from measure import Measured, measure  # noqa: E402

LIMIT = 300  # seconds for one network, all prunings included

HEAD = """# Architectures

Written by `python scripts/architectures.py` with torch {torch}, torchvision {torchvision}, Ultralytics {ultralytics}.
`tox -e architectures` checks the same as tests.

Every network is built with random weights, Ultralytics' from their YAML at the smallest scale. It is traced once,
pruned at random to 75, 50 and 25 % of its free channels, masked and compact, and both are run in inference and in
training mode. **Pruned** means: each time at least one layer lost channels for real and the outputs changed, and none
of the compact network differed from the masked one's by more than 1e-10 of its largest value (1e-4 in float32, marked
with an asterisk).

- *layers*: convolutions (depthwise ones pass channels on and are not counted) and linear layers that ran.
- *channels*: share of their output channels that may be removed.
- *parameters*: share of the network's parameters in rows or columns that may be removed.
- *difference*: the greatest seen, relative, over three prunings and two modes.
- *s*, *GB*: time of the trace, which is one inference and one training pass; peak memory of the whole process, which
  holds the libraries (0.5 GB), the traced or the masked network, the compact one and a spare copy of the weights, in
  float64 but where marked: twice what the same network takes in use.
- *must stay*: share of the channels by reason: outputs of the network, and the operators through which channels could
  not be followed. `view`, `cat` and `softmax` in these rows are mostly a head that puts its outputs together.
"""


PEER = """The 85 are the networks that Torch-Pruning, the library with the widest coverage, lists in its own benchmark;
it prunes 77 of them. Of all {all} for classification, segmentation, detection and optical flow, {pruned} are pruned.
Detectors are traced and compared up to where they select boxes. Whole ones trace in inference where no code reads
values of the image (Faster R-CNN, SSDlite); `seqprune.trace` refuses others (Mask and Keypoint R-CNN) and says where.
"""


def child(zoo: ModuleType, name: str, results: Any) -> None:
    memory.begin()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    model, inputs = zoo.build(name)
    exact = inputs[0].dtype == torch.float64
    seen = measure(model, inputs)
    results.put((seen, exact, memory.peak() / 2**30))


def look(zoo: ModuleType, name: str) -> tuple[Measured, bool, float] | None:
    """What one network shows, in a process of its own; None where it failed or took too long."""
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    process = context.Process(target=child, args=(zoo, name, results))
    process.start()
    process.join(LIMIT)
    process.kill()
    return None if results.empty() else results.get()


def row(name: str, found: tuple[Measured, bool, float] | None) -> tuple[str, bool]:
    if found is None:
        return f"| {name} | failed | | | | | | |", False
    seen, exact, memory = found
    pruned = seen.pruned and seen.difference <= (1e-10 if exact else 1e-4)
    reasons = "; ".join(f"{why} {share:.1%}" for why, share in list(seen.pinned.items())[:4])
    difference = f"{seen.difference:.0e}{'' if exact else '*'}"
    cells = (name, seen.layers, f"{seen.channels:.0%}", f"{seen.parameters:.0%}", difference, f"{seen.seconds:.1f}")
    return f"| {' | '.join(map(str, cells))} | {memory:.1f} | {reasons}{'' if pruned else ' **NOT PRUNED**'} |", pruned


def table(zoo: ModuleType, names: list[str]) -> tuple[list[str], set[str]]:
    lines = ["| architecture | layers | channels | parameters | difference | s | GB | must stay |"]
    lines.append("|---|---:|---:|---:|---:|---:|---:|---|")
    pruned = set()
    for name in names:
        line, good = row(name, look(zoo, name))
        print(line, flush=True)  # noqa: T201 - a script says what it does
        lines.append(line)
        if good:
            pruned.add(name)
    return lines, pruned


def write() -> None:
    versions = {m.__name__: m.__version__ for m in (torch, torchvision, ultralytics)}
    names = ultralytics_zoo.names()
    lines, pruned = table(ultralytics_zoo, names)
    text = [HEAD.format(**versions), f"## Ultralytics: {len(pruned)} of {len(names)} pruned", "", *lines, ""]
    names, peer = torchvision_zoo.names(), torchvision_zoo.peer_names()
    lines, pruned = table(torchvision_zoo, names)
    text += [f"## torchvision: {len(pruned & set(peer))} of {len(peer)} pruned", ""]
    text += [PEER.format(all=len(names), pruned=len(pruned)), *lines, ""]
    (ROOT / "docs" / "architectures.md").write_text("\n".join(text), encoding="utf-8")


if __name__ == "__main__":
    if asked := sys.argv[1:]:
        for zoo in (ultralytics_zoo, torchvision_zoo):
            table(zoo, [name for name in zoo.names() if name in asked])
    else:
        write()
