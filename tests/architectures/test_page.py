"""docs/architectures.md has every network that there is; the limits of time and memory hold."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import memory
import pytest
import torchvision
import torchvision_zoo
import ultralytics
import ultralytics_zoo

PAGE = (Path(__file__).parents[2] / "docs" / "architectures.md").read_text(encoding="utf-8")
SECONDS, GIGABYTES = 20, 4

# In the 4 GB are the libraries, the network, its trace, the masked and the compact one.
USED = """
import memory, sys, torch, ultralytics_zoo
from seqprune.testing.networks import random_plan
from seqprune import compact, mask, trace, verify
torch.nn.Module.double = lambda self: self
model, inputs = ultralytics_zoo.build(sys.argv[1])
image = inputs[0].float()
graph = trace(model, image)
plan = random_plan(graph, 0)
verify(mask(model, plan, graph), compact(model, plan, graph), image)
print(memory.peak() / 2**30)
"""


def rows() -> dict[str, list[str]]:
    lines = [line for line in PAGE.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    return {row[0]: row[1:] for row in cells if row[0] != "architecture"}


def test_every_network_has_a_row_and_was_pruned_in_time() -> None:
    written = rows()
    for library, zoo in ((ultralytics, ultralytics_zoo), (torchvision, torchvision_zoo)):
        if library.__version__ in PAGE.partition("Every network")[0]:  # others ship other networks
            assert {*zoo.names()} <= {*written}
    for name in {*ultralytics_zoo.names()} & {*written}:
        assert float(written[name][4]) <= SECONDS, name
        assert "NOT PRUNED" not in written[name][-1], name
        assert "failed" not in written[name], name


@pytest.mark.slow
@pytest.mark.architectures
@pytest.mark.skipif(not memory.MEASURABLE, reason="asks the kernel's /proc for the peak")
@pytest.mark.parametrize("name", ["yolov3-spp"])
def test_the_largest_network_is_pruned_within_four_gigabytes(name: str) -> None:
    """Whose row says most, in the float64 of the contract; of a child that counts from its parent's peak, 10.3 GB."""
    command = [sys.executable, "-c", f"import sys; sys.path[:0] = {sys.path!r}\n{USED}", name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    assert float(done.stdout.split()[-1]) <= GIGABYTES
