"""Memory does not grow with the images, nor with the objects in them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import memory
import pytest

PEAK = """
import sys
import memory, torch
from detectors import Detector
from seqprune.observe.batch import Batch
from seqprune.observe.extract import match_objects, observe
from seqprune.observe.streaming import Blocks, BlockStream

torch.set_num_threads(1)
SIDE, BATCH, OBJECTS = 64, 10, 20
LEAKED = []


class Many:
    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count // BATCH

    def __iter__(self):
        draw = torch.Generator().manual_seed(0)
        for _ in range(len(self)):
            corner = torch.rand(BATCH * OBJECTS, 2, generator=draw) * 40
            images = torch.randint(0, 256, (BATCH, 3, SIDE, SIDE), dtype=torch.uint8, generator=draw)
            index = torch.arange(BATCH).repeat_interleave(OBJECTS)
            kinds = torch.randint(0, 80, index.shape, generator=draw)
            if sys.argv[3] == "leaks":
                LEAKED.append(torch.ones(1 << 18))
            yield Batch(images, index, kinds, torch.cat([corner, corner], 1))


memory.begin()
chain = Blocks("model", tuple((i - 1,) for i in range(6)), (False,) * 6)
stream = BlockStream(chain, 1_000_000) if sys.argv[2] == "streamed" else None
match_objects(Detector(), lambda model, images: [torch.zeros(0, 6)] * len(images), Many(int(sys.argv[1])))
for layer in ("model.1.conv", "model.4.cv2.conv"):
    seen = observe(Detector(), [layer], Many(int(sys.argv[1])), 80, stream=stream)
    assert seen.objects == int(sys.argv[1]) * OBJECTS
print(memory.peak())
"""
SUPPORT = Path(__file__).parents[1] / "support"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not memory.MEASURABLE, reason="asks the kernel's /proc for the peak"),
]


def peak(images: int, way: str, fault: str = "sound") -> int:
    path = os.pathsep.join([str(SUPPORT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", PEAK, str(images), way, fault],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )
    return int(done.stdout)


@pytest.mark.parametrize("way", [pytest.param("whole", marks=pytest.mark.long), "streamed"])
def test_the_peak_over_2000_images_is_within_a_tenth_of_that_over_200(way: str) -> None:
    """Streamed with a megabyte of memory for what is kept: the rest lies on disk."""
    few, many = peak(200, way), peak(2000, way)
    assert many <= 1.1 * few, (few, many)


def test_a_leak_of_a_megabyte_a_batch_is_caught_beside_a_parent_of_any_size() -> None:
    """Of a child that starts at its parent's peak it was not: the kernel keeps ``ru_maxrss`` over fork and exec."""
    parent = b"x" * (1 << 30)
    few, many = peak(200, "whole", "leaks"), peak(2000, "whole", "leaks")
    assert many > 1.1 * few, (few, many)
    assert few < len(parent)
