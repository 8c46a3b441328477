"""The command line in this process and in one of its own, and a tiny data set with COCO's eighty classes."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from PIL import Image, ImageDraw

from seqprune.cli import app as cli


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Outcome]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Small networks: two threads wait for each other more than they work, above all beside other tests."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """``run("inspect", "yolov8n.yaml")`` in this process; what the command line sets is put back."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setenv("YOLO_VERBOSE", "False")

    def call(*args: object) -> Outcome:
        capsys.readouterr()
        code = cli.call([str(arg) for arg in args])
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def process() -> Run:
    """The same in a process of its own, its output piped; ``before`` is Python run in it first."""

    def call(*args: object, before: str = "") -> Outcome:
        script = f"{before}\nfrom seqprune.cli.app import main\nmain()"
        command: Sequence[str] = [sys.executable, "-c", script, *map(str, args)]
        unset = ("FORCE_COLOR", "COLUMNS", "YOLO_VERBOSE")
        plain = {name: value for name, value in os.environ.items() if name not in unset}
        plain["OMP_NUM_THREADS"] = "1"
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=plain, check=False)  # noqa: S603
        return Outcome(done.returncode, done.stdout, done.stderr)

    return call


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve training and two validation images of 64 pixels with objects of three of eighty classes."""
    root = tmp_path_factory.mktemp("data")
    draw = random.Random(5)  # noqa: S311 - no secret
    for split, count in (("train", 12), ("val", 2)):
        for folder in ("images", "labels"):
            (root / folder / split).mkdir(parents=True)
        for number in range(count):
            image, lines = Image.new("RGB", (64, 64), (40, 40, 40)), []
            for kind in range(3):
                x, y, side = draw.uniform(0.3, 0.7), draw.uniform(0.3, 0.7), draw.uniform(0.2, 0.5)
                corners = [64 * (x - side / 2), 64 * (y - side / 2), 64 * (x + side / 2), 64 * (y + side / 2)]
                colour = tuple(draw.randint(0, 80) + (150 if band == kind else 0) for band in range(3))
                ImageDraw.Draw(image).rectangle(corners, fill=colour)
                lines.append(f"{kind} {x:.4f} {y:.4f} {side:.4f} {side:.4f}")
            image.save(root / "images" / split / f"{number:02}.png")
            (root / "labels" / split / f"{number:02}.txt").write_text("\n".join(lines))
    names = "".join(f"  {number}: class{number}\n" for number in range(80))
    path = root / "data.yaml"
    path.write_text(f"train: images/train\nval: images/val\nnames:\n{names}")
    return path
