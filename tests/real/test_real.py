"""Real weights and real images, where they lie beside the checkout."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Literal

import pytest
import torch

from seqprune.engine.run import layers_for
from seqprune.engine.sequential import prune_sequentially
from seqprune.engine.steps import Settings
from seqprune.plan import PrunePlan
from seqprune.report.result import PruneResult
from seqprune.run import prune
from seqprune.yolo.data.images import DetectionImages
from seqprune.yolo.files.load import load
from seqprune.yolo.task.predict import predict
from seqprune.yolo.task.tracing import trace_detector

REAL = Path(__file__).resolve().parents[3] / "shared" / "real"
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not REAL.is_dir(), reason=f"needs the real weights and images in {REAL}"),
]


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy: the originals are nobody's to write to."""
    return Path(shutil.copytree(REAL, tmp_path_factory.mktemp("real"), dirs_exist_ok=True))


def run(real: Path, **options: object) -> PruneResult:
    data = real / "coco128" / "data.yaml"
    return prune(real / "weights" / "yolov8n.pt", data, imgsz=320, val=False, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def eight(real: Path) -> PruneResult:
    return run(real, layers=8, blocks=range(1, 10))


def test_three_layers_of_the_default_blocks(real: Path) -> None:
    result = run(real)
    assert [s.layer for s in result.steps] == ["model.3.conv", "model.4.cv1.conv", "model.5.conv"]
    assert all(s.status == "pruned" and 0 < s.removed < s.channels for s in result.steps)
    assert result.record.verify.max_rel <= 1e-4


def test_eight_dependent_layers_front_to_back(eight: PruneResult) -> None:
    """The original stopped with a channel mismatch at its second layer."""
    assert len(eight.steps) == 8
    assert [s.block for s in eight.steps] == [1, 3, 4, 5, 6, 7, 8, 9]
    assert all(s.status == "pruned" for s in eight.steps)
    assert eight.record.verify.max_rel <= 1e-4
    assert eight.record.after.params < 0.8 * eight.record.before.params


def test_the_report_holds_what_it_must(eight: PruneResult, tmp_path: Path) -> None:
    report = json.loads(eight.report(tmp_path / "report.json").read_text())
    assert {"model", "data", "preset", "seed", "versions", "steps", "verify", "before", "after"} <= report.keys()
    assert report["verify"].keys() == {"max_abs", "max_rel", "precision", "tried"}
    figures = {"params", "gflops", "latency_ms", "file_bytes", "map50_95", "map50", "precision", "recall"}
    assert report["before"].keys() == report["after"].keys() == figures
    step = {
        "layer",
        "block",
        "channels",
        "active_before",
        "active_after",
        "objects",
        "classes",
        "k",
        "status",
        "reason",
    }
    assert all(step | {"seconds"} <= entry.keys() for entry in report["steps"])


@pytest.mark.long
def test_streaming_makes_the_plan_of_whole_passes(real: Path) -> None:
    options = {"layers": 4, "blocks": (4, 6, 8, 9), "images": 48}
    assert run(real, **options).plan == run(real, cache_bytes=0, **options).plan


THREADS_AND_BATCHES = [(2, 8), (4, 8), (1, 4), (2, 16), (4, 24)]


@pytest.mark.parametrize("match", [pytest.param("all", marks=pytest.mark.long), "once"])
def test_one_seed_is_one_plan_whatever_the_threads_and_the_batch(real: Path, match: Literal["all", "once"]) -> None:
    """With two threads 302 of 483 kept channels were others at 160 px."""
    detector = load(real / "weights" / "yolov8n.pt")
    graph = trace_detector(detector.model)
    names = layers_for(graph, 4, range(1, 9))

    def plan(threads: int, batch: int) -> PrunePlan:
        torch.set_num_threads(threads)
        images = DetectionImages(real / "coco128" / "data.yaml", imgsz=160, batch=batch, images=24)
        images._dataset.batch_shapes[:] = 160  # or a batch would be shaped by what is in it
        about = (deepcopy(detector.model), graph, names, images, len(detector.names))
        return prune_sequentially(*about, settings=Settings(match=match), predict=predict)[0]

    before = torch.get_num_threads()
    try:
        expected = plan(1, 8)
        differ = [way for way in THREADS_AND_BATCHES if plan(*way) != expected]
    finally:
        torch.set_num_threads(before)
    assert not differ


PLAIN = """
import sys
sys.modules["seqprune"] = None
import numpy, onnxruntime, torch, ultralytics
weights, image = sys.argv[1:]
yolo = ultralytics.YOLO(weights)
yolo.predict(image, imgsz=320, verbose=False)
yolo = ultralytics.YOLO(weights)
exported = yolo.export(format="onnx", imgsz=320, simplify=False, verbose=False)
x = torch.rand(1, 3, 320, 320, generator=torch.Generator().manual_seed(0))
with torch.no_grad():
    expected = ultralytics.YOLO(weights).model.eval()(x)[0].numpy()
seen = onnxruntime.InferenceSession(exported).run(None, {"images": x.numpy()})[0]
print("difference", float(numpy.abs(seen - expected).max() / numpy.abs(expected).max()))
"""


@pytest.mark.slow
def test_plain_ultralytics_goes_on_from_there(eight: PruneResult, real: Path, tmp_path: Path) -> None:
    """Where seqprune is not installed: load, predict, export, and the export agrees."""
    weights = eight.save(tmp_path / "pruned.pt")
    image = next((real / "coco128" / "images" / "val").glob("*.jpg"))
    command = [sys.executable, "-c", PLAIN, str(weights), str(image)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)  # noqa: S603
    assert done.returncode == 0, done.stderr[-3000:]
    assert float(done.stdout.split("difference")[-1]) <= 1e-3
    full = eight.record.before.params * 4
    assert (tmp_path / "pruned.onnx").stat().st_size < 0.85 * full
