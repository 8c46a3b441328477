"""Presets ``accurate`` and ``fast``: every stage alone, and the whole.

On the demo's detector and scenes of 128 px. The floor of every stage that looks at images is one forward pass over
them; of the choice the inverses of the second moments that it begins with; of a plan by weights, of loading and of
saving the copy of the network; that of the import what torch alone takes. What came out stands beside the times:
``quality_`` figures are held to the best that a history has seen.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import seqprune
from benchmarks.timing import in_turns
from seqprune.budget.criteria import Scoring, scores
from seqprune.budget.price import Price
from seqprune.budget.second_order import readings_of
from seqprune.budget.spread import by_scores
from seqprune.budget.surgeon import removal_order
from seqprune.budget.target import Target
from seqprune.demo import weights_path, write_scenes
from seqprune.engine.accurate import accurate_plan, relevance_for, repaired
from seqprune.graph import ChannelGraph, trace
from seqprune.observe.patches import Sampler, SecondMoments
from seqprune.observe.reading import reading_of
from seqprune.observe.relevance import Relevance
from seqprune.observe.sources import second_moments
from seqprune.observe.unit import Curve
from seqprune.repair.curve import Samples, bend
from seqprune.repair.solve import solve
from seqprune.surgery import compact, mask
from seqprune.yolo.data.images import DetectionImages
from seqprune.yolo.files.load import load
from seqprune.yolo.files.save import save_pt
from seqprune.yolo.task.task import YoloTask
from seqprune.yolo.task.validate import validate

TRAIN, VAL, SIZE, BATCH = 32, 60, 128, 8
SAMPLES = 1 << 13
TARGET = Target("params", 0.8)


@dataclass(frozen=True)
class Prepared:
    """A detector, its images and what the stages before have found."""

    data: Path
    model: nn.Module
    task: YoloTask
    graph: ChannelGraph
    relevance: Relevance

    def forward(self) -> None:
        """One pass over the images."""
        with torch.no_grad():
            for batch in self.task.images:
                batch.run(self.model, slice(None))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, device: torch.device) -> Prepared:
    data = write_scenes(tmp_path_factory.mktemp("digits"), train=TRAIN, val=VAL, size=SIZE)
    detector = load(weights_path())
    images = DetectionImages(data, imgsz=SIZE, batch=BATCH, stride=detector.stride, names=detector.names)
    task = YoloTask(images, detector.names, SIZE)
    graph = task.trace(detector.model)
    model = detector.model.eval().to(device)
    relevance = relevance_for(model, task, reading_of(model, next(iter(images))))
    assert relevance is not None
    return Prepared(data, model, task, graph, relevance)


def stage(
    benchmark: Any, action: Callable[[], Any], floor: Callable[[], Any], device: torch.device, rounds: int = 3
) -> Any:
    benchmark.group = "presets, stage by stage"
    return in_turns(benchmark, action, beside={"floor": floor}, device=device, rounds=rounds).results["ours"]


class TestAccurate:
    def test_weighing_errors(self, benchmark: Any, prepared: Prepared, device: torch.device) -> None:
        reading = reading_of(prepared.model, next(iter(prepared.task.images)))
        action = partial(relevance_for, prepared.model, prepared.task, reading)
        found = stage(benchmark, action, prepared.forward, device)
        assert found is not None
        assert found.curvature

    def test_second_moments(self, benchmark: Any, prepared: Prepared, device: torch.device) -> None:
        names = reading_of(prepared.model, next(iter(prepared.task.images))).names
        images, relevance = prepared.task.images, prepared.relevance
        action = partial(second_moments, prepared.model, names, images, Sampler(), relevance=relevance)
        moments, _ = stage(benchmark, action, prepared.forward, device)
        assert moments

    def test_the_order_of_removal(self, benchmark: Any, prepared: Prepared, device: torch.device) -> None:
        graph = prepared.graph
        sources = readings_of(prepared.model, graph, prepared.task.images).sources
        price = Price(prepared.model, graph)

        def order() -> Any:
            layers = tuple(layer.groups for layer in graph.all_layers)
            return removal_order(sources, ~graph.pinned, graph.balances, layers, price.savings, enough, floor=0.1)

        def enough(gone: np.ndarray[Any, Any]) -> bool:
            return price.share(gone) <= TARGET.share

        def floor() -> None:
            for source in sources:
                one = torch.eye(len(source.products), dtype=torch.float64, device=source.products.device)
                torch.cholesky_inverse(torch.linalg.cholesky(source.products + one))

        steps = stage(benchmark, order, floor, device, rounds=5)
        benchmark.extra_info["steps"] = len(steps)
        assert steps

    def test_giving_channels_back(self, benchmark: Any, prepared: Prepared, cpu: torch.device) -> None:
        graph = prepared.graph
        ranks = np.random.default_rng(0).random(graph.group_count)
        removed = ~graph.pinned & (ranks < 0.5)
        counts = [layer.groups for layer in graph.all_layers]

        def legalise() -> Any:
            return [graph.legalise(removed, ranks, ~graph.pinned, 8) for _ in range(20)][-1]

        def floor() -> None:
            for _ in range(20):
                for groups in counts:
                    int((~removed[groups]).sum())

        found = stage(benchmark, legalise, floor, cpu, rounds=7)
        assert found.any()

    def test_repairs_and_their_judge(self, benchmark: Any, prepared: Prepared, device: torch.device) -> None:
        model, graph, task = prepared.model, prepared.graph, prepared.task
        plan = accurate_plan(model, graph, task, TARGET, round_to=8, relevance=prepared.relevance)
        masked = mask(model, plan, graph)
        action = partial(repaired, model, masked, plan, graph, task, "ls", relevance=prepared.relevance)
        _, repairs = stage(benchmark, action, prepared.forward, device)
        benchmark.extra_info["repairs_kept"] = sum(repair.kept for repair in repairs)
        assert repairs

    def test_the_fit_through_the_activation(self, benchmark: Any, device: torch.device) -> None:
        """Of one convolution as most are, beside the linear fit that it goes on from."""
        draw = torch.Generator().manual_seed(0)
        u = (torch.randn(SAMPLES, 288, generator=draw) @ torch.randn(288, 288, generator=draw) / 17).relu().to(device)
        weight = (torch.randn(64, 288, generator=draw) / 6).double().to(device)
        y = (u.double() @ weight.T - 1).float()
        curve = Curve(*(t.to(device) for t in (torch.ones(64).double(), torch.zeros(64).double())), nn.SiLU())
        moments, kept = SecondMoments(), np.arange(32) % 4 > 0
        moments.update(u[None], y[None])
        floor = partial(solve, weight, moments, kept, 1e-2)
        linear = floor()

        def through() -> tuple[torch.Tensor, torch.Tensor]:
            samples = Samples(curve, 1)
            samples.add(u, y, None)
            return bend(weight, *linear, moments, samples, kept, 1e-2)

        def error(rows: torch.Tensor, shift: torch.Tensor) -> float:
            stay = torch.from_numpy(np.repeat(kept, 9)).to(device)
            z = u[:, stay].double() @ rows[:, stay].T + shift
            return float((curve(z) - curve(y.double())).square().mean())

        found = stage(benchmark, through, floor, device, rounds=5)
        assert error(*found) < error(*linear)

    def test_the_judge(self, benchmark: Any, prepared: Prepared, device: torch.device) -> None:
        _, held = prepared.task.images.hold_out()
        assert held is not None
        judge = prepared.task.judge(prepared.model, held)
        assert judge is not None
        other = deepcopy(prepared.model)
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.mul_(0.99)
        found = stage(benchmark, partial(judge, other), prepared.forward, device)
        assert judge(prepared.model) == 0 < found < float("inf")  # it compares with the network's own detections

    def test_the_whole_preset(self, benchmark: Any, prepared: Prepared, device: torch.device) -> None:
        result = stage(benchmark, partial(_prune, prepared, device, "accurate"), prepared.forward, device, rounds=2)
        _quality(benchmark, prepared, result)


class TestFast:
    def test_a_plan_by_weights(self, benchmark: Any, prepared: Prepared, cpu: torch.device) -> None:
        model, graph = prepared.model, prepared.graph
        scored = Scoring(model, graph)
        floor = partial(deepcopy, model)

        def plan() -> Any:
            return by_scores(graph, Price(model, graph), scores("lamp", scored), TARGET.share, spread="global")

        assert stage(benchmark, plan, floor, cpu, rounds=7).any()

    def test_the_whole_by_weights(self, benchmark: Any, prepared: Prepared, cpu: torch.device) -> None:
        """Traced, chosen and compact, beside two copies: no less would leave the network as it was."""
        model, example = prepared.model, prepared.task.example(prepared.model)

        def whole() -> nn.Module:
            graph = trace(model, example)
            scored = scores("lamp", Scoring(model, graph))
            removed = by_scores(graph, Price(model, graph), scored, TARGET.share, spread="global", round_to=8)
            return compact(model, seqprune.PrunePlan.from_removed(graph, removed), graph)

        def floor() -> None:
            deepcopy(model)
            deepcopy(model)

        small = stage(benchmark, whole, floor, cpu, rounds=5)
        benchmark.extra_info["kept_parameters"] = sum(p.numel() for p in small.parameters()) / sum(
            p.numel() for p in model.parameters()
        )

    def test_the_whole_preset(self, benchmark: Any, prepared: Prepared, device: torch.device) -> None:
        result = stage(benchmark, partial(_prune, prepared, device, "fast"), prepared.forward, device, rounds=3)
        _quality(benchmark, prepared, result)


class TestFiles:
    def test_loading(self, benchmark: Any, cpu: torch.device) -> None:
        benchmark.group = "files and imports"
        model = load(weights_path()).model
        action, floor = partial(load, weights_path()), partial(deepcopy, model)
        in_turns(benchmark, action, beside={"floor": floor}, device=cpu, rounds=5)

    def test_saving(self, benchmark: Any, prepared: Prepared, cpu: torch.device, tmp_path: Path) -> None:
        benchmark.group = "files and imports"
        model = prepared.model
        action = partial(save_pt, model, tmp_path / "saved.pt", names=prepared.task.names)
        floor = partial(torch.save, model.state_dict(), tmp_path / "bare.pt")
        in_turns(benchmark, action, beside={"floor": floor}, device=cpu, rounds=5)
        benchmark.extra_info["bytes"] = (tmp_path / "saved.pt").stat().st_size

    def test_importing(self, benchmark: Any, cpu: torch.device) -> None:
        benchmark.group = "files and imports"

        def run(code: str) -> None:
            subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603

        beside = {"floor": partial(run, "import torch")}
        in_turns(benchmark, partial(run, "import seqprune"), beside=beside, device=cpu, rounds=3)


def _prune(prepared: Prepared, device: torch.device, preset: str) -> Any:
    data = str(prepared.data) if preset == "accurate" else None
    about = {"images": TRAIN, "batch": BATCH} if data else {}
    where = str(device) if device.type == "cpu" else 0
    target = f"{TARGET.kind}={TARGET.share}"
    return seqprune.prune(
        weights_path(), data, preset=preset, target=target, imgsz=SIZE, val=False, device=where, **about
    )


def _quality(benchmark: Any, prepared: Prepared, result: Any) -> None:
    """What is left of the mAP, a figure of which less is a regression."""
    whole, pruned = (
        validate(model.float().cpu(), prepared.data, imgsz=SIZE, batch=BATCH).map50_95
        for model in (load(weights_path()).model, deepcopy(result.model))
    )
    benchmark.extra_info["quality_map_share"] = pruned / whole
    assert result.metrics["params"] > 0
