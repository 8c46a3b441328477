"""Methods at equal parameters, on a detector that detects: the demo's."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import seqprune.budget.criteria
from seqprune.budget.criteria import CRITERIA, Scoring, register
from seqprune.budget.target import Target
from seqprune.demo import weights_path
from seqprune.demo.scenes import write_scenes
from seqprune.engine.listener import Listener
from seqprune.engine.state import State
from seqprune.errors import InputError, SeqPruneError
from seqprune.measure.compare import compare
from seqprune.measure.comparison import Comparison, Row
from seqprune.measure.methods import METHODS, by_clusters, method, ratio_for
from seqprune.measure.sensitivity import sensitivity
from seqprune.yolo import DetectionImages, parameters
from seqprune.yolo.task.task import YoloTask
from seqprune.yolo.task.tracing import trace_detector

SIZE = 128


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("digits") / "digits", train=32, val=8, size=SIZE, seed=0)


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Adds a criterion for one test."""
    monkeypatch.setattr("seqprune.budget.criteria.CRITERIA", dict(CRITERIA))
    monkeypatch.setattr("seqprune.measure.methods.CRITERIA", seqprune.budget.criteria.CRITERIA)
    return register


def looking(data: Path, images: int | None = None) -> YoloTask:
    seen = DetectionImages(data, imgsz=64, images=images)
    return YoloTask(seen, seen.names, 64)


def test_all_methods_keep_as_many_parameters_and_a_failure_stops_nobody(
    digits: Path, added: Callable[..., None]
) -> None:
    def refuses(_scoring: Scoring) -> np.ndarray:
        raise SeqPruneError("not today")

    added("refuses", refuses)
    told: list[Row] = []
    found = compare(weights_path(), digits, targets=[0.8], methods=["l1", "refuses"], imgsz=SIZE, on_row=told.append)
    whole, *rows = found.rows
    assert whole.file_bytes == weights_path().stat().st_size, "the file's own size, not what it would be saved as"
    assert [row.method for row in told] == ["unpruned", "l1", "refuses"]
    by_name = {row.method: row for row in rows}
    assert by_name["refuses"].reason == "not today"
    assert by_name["refuses"].score is None
    assert by_name["l1"].share == pytest.approx(0.8, rel=0.02)
    assert whole.score > 0.5 > by_name["l1"].score
    assert "refuses (not today)" in found.to_markdown()
    assert json.loads(found.to_json())["rows"][0]["share"] == 1


@pytest.mark.slow
def test_what_every_method_leaves_is_fine_tuned_alike(digits: Path) -> None:
    """Also what Torch-Pruning leaves, whose network no YAML describes."""
    pytest.importorskip("torch_pruning")
    options = {"targets": [0.95], "methods": ["l1", "tp-magnitude"], "imgsz": SIZE}
    plain, trained = (compare(weights_path(), digits, finetune=epochs, **options) for epochs in (0, 8))
    assert trained.settings["finetune"] == 8
    for before, after in zip(plain.rows[1:], trained.rows[1:], strict=True):
        assert after.reason == ""
        assert (after.method, after.params, after.gflops) == (before.method, before.params, before.gflops)
        assert after.score > before.score
    assert trained.rows[0].score == plain.rows[0].score


def test_several_subsets_give_a_mean_and_a_spread(digits: Path, added: Callable[..., None]) -> None:
    """What a method does with other images is told apart from what it does better."""
    seeds: list[int] = []

    def by_seed(scoring: Scoring) -> np.ndarray:
        seeds.append(scoring.seed)
        return np.random.default_rng(scoring.seed).random(scoring.graph.group_count)

    added("by-seed", by_seed)
    told: list[str] = []
    rows: list[Row] = []
    found = compare(
        *(weights_path(), digits),
        **{"targets": [0.98], "methods": ["l1", "by-seed"], "images": 8, "imgsz": SIZE, "subsets": 3, "seed": 5},
        listener=Listener(stage=lambda name, _total: told.append(name)),
        on_row=rows.append,
    )
    assert seeds == [5, 6, 7]
    assert [row.score for row in rows[1:4]] == list(found.rows[1].runs)
    assert [str(row).count("–") for row in rows] == [0, *([0] * 3 + [1]) * 2]
    assert "l1 at 0.98, subset 3" in told
    whole, alike, spread = found.rows
    assert (whole.runs, len(alike.runs), len(spread.runs)) == ((), 3, 3)
    assert min(alike.runs) == max(alike.runs) == pytest.approx(alike.score)
    assert min(spread.runs) < spread.score < max(spread.runs)
    assert spread.score == pytest.approx(sum(spread.runs) / 3)
    assert found.settings["subsets"] == "3, disjoint"
    assert f"{spread.score:.4f} ({min(spread.runs):.4f}–{max(spread.runs):.4f})" in found.to_markdown()
    assert found.to_html().count('class="span"') == 3 * 2
    rows = json.loads(found.to_json())["rows"]
    assert ["runs" in row for row in rows] == [False, True, True]


def test_equal_operations_for_those_that_can(digits: Path) -> None:
    found = compare(
        weights_path(), digits, targets=[0.8], count="flops", methods=["lamp-global", "clusters"], imgsz=SIZE
    )
    whole, equal, reason = (row for row in found.rows if row.method != "imgsz")
    assert len(found.rows) == 4  # what users would try instead is there unasked
    assert equal.share == equal.gflops / whole.gflops == pytest.approx(0.8, rel=0.02)
    assert equal.params / whole.params != pytest.approx(0.8, rel=0.02)
    assert reason.reason == "clusters is brought to a share of the parameters only: write params=0.8"
    assert "Methods at equal operations" in found.to_html()
    with pytest.raises(InputError, match="not latency: choose params or flops"):
        compare(weights_path(), digits, targets=[0.8], count="latency", methods=["l1"])


def test_smaller_images_are_a_row_and_factors_another(digits: Path) -> None:
    """Whoever tries a smaller size beat the preset at equal operations, and no table said so."""
    found = compare(
        *(weights_path(), digits),
        targets=[0.6],
        methods=["imgsz", "accurate-factors"],
        count="flops",
        imgsz=SIZE,
        images=16,
    )
    whole, smaller, factors = found.rows
    assert smaller.imgsz == 96
    assert smaller.params == whole.params
    assert smaller.share == pytest.approx(96**2 / SIZE**2, rel=0.01)
    assert factors.share == pytest.approx(0.6, abs=0.03)
    assert factors.score is not None
    assert factors.score > 0.5 * whole.score
    assert [row.get("imgsz") for row in json.loads(found.to_json())["rows"]] == [None, 96, None]
    (row,) = compare(weights_path(), digits, targets=[0.6], methods=["imgsz"], imgsz=SIZE, images=16).rows[1:]
    assert row.reason == "imgsz leaves all parameters: compare at operations"


def test_factors_are_compared_with_factors(data_yaml: Path, tiny: nn.Module) -> None:
    """``accurate-factors`` took channels out, as ``accurate`` does: its moves were not handed on."""
    task = looking(data_yaml, images=4)
    small = method("accurate-factors")(tiny, trace_detector(tiny), Target("flops", 0.95), task, 0)
    kernels = [module.kernel_size for module in small.modules() if isinstance(module, nn.Conv2d)]
    assert (3, 1) in kernels or (1, 3) in kernels


def test_clusters_leave_what_their_ratio_was_chosen_for(data_yaml: Path, tiny: nn.Module) -> None:
    """How many channels stay is known before any image is seen, so that against top-k only the choice differs."""
    graph = trace_detector(tiny)
    assert 0 < ratio_for(tiny, graph, 0.6) < 1
    small = by_clusters(tiny, graph, Target("params", 0.6), looking(data_yaml), 0, match="all")
    topk = method("topk-l1")(tiny, graph, Target("params", 0.6), looking(data_yaml), 0)
    for pruned in (small, topk):
        assert parameters(pruned) / parameters(tiny) == pytest.approx(0.6, rel=0.04)  # so few channels are coarse
    for layer in graph.layers:
        counts = [pruned.get_submodule(layer.name).weight.shape[0] for pruned in (small, topk)]
        assert abs(counts[0] - counts[1]) <= max(2, 0.2 * layer.channels)  # constraints even out what was chosen


def test_clusters_that_could_not_choose_are_no_result(data_yaml: Path, tiny: nn.Module) -> None:
    """A detector that finds nothing would come back whole and look best."""
    task, weights = looking(data_yaml, images=4), deepcopy(tiny.state_dict())
    with pytest.raises(SeqPruneError, match=r"clusters leave 1\.000 of the parameters.*no labelled object"):
        by_clusters(tiny, trace_detector(tiny), Target("params", 0.8), task, 0)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in tiny.state_dict().items())


@pytest.mark.parametrize("criterion", ["taylor", "obs"])
def test_criteria_that_look_at_images_are_given_them(data_yaml: Path, tiny: nn.Module, criterion: str) -> None:
    task = looking(data_yaml, images=4)
    small = method(f"{criterion}-global")(tiny, trace_detector(tiny), Target("params", 0.7), task, 0)
    assert parameters(small) / parameters(tiny) == pytest.approx(0.7, rel=0.02)
    found = sensitivity(tiny, data_yaml, layers=["model.1.conv"], ratios=[0.5], criterion=criterion, imgsz=64)
    assert (found.points[0].kept, found.points[0].channels) == (8, 16)


def test_methods_are_named(tiny: nn.Module, data_yaml: Path, added: Callable[..., None]) -> None:
    graph, task = trace_detector(tiny), looking(data_yaml)
    added("mine", lambda scoring: np.arange(scoring.graph.group_count, dtype=np.float64))
    small = [method(name)(tiny, graph, Target("params", 0.7), task, 0) for name in ("mine", "mine-global")]
    for model in small:
        assert parameters(model) / parameters(tiny) == pytest.approx(0.7, rel=0.02)
    assert method("clusters") is METHODS["clusters"]
    assert {"tp-magnitude", "tp-group-norm", "tp-bn-scale", "tp-taylor", "tp-random"} <= METHODS.keys()
    with pytest.raises(InputError, match="there is no method 'clusters-global'"):
        method("clusters-global")


def test_a_page_of_one_method_escapes_what_it_shows() -> None:
    whole = Row("unpruned", 1.0, 100, 1.0, 2.0, 3.0, {"map50_95": 0.5, "map50": 0.6})
    found = Comparison(
        "<m>.pt", "d.yaml", {"seed": 0}, (whole, Row("l1", 0.8, 80, 0.8, 1.5, 2.0, {"map50_95": 0.25, "map50": 0.3}))
    )
    page = found.to_html()
    assert "&lt;m&gt;.pt" in page
    assert "<m>" not in page
    assert page.count("<circle") == 3 * 2 * 2  # of the method and of the front, in each of three plots
    assert "50.0%" in page


def floats_and_bits(calls: list[int]) -> Callable[..., dict[str, Any]]:
    """In place of a runtime's tool: half as fast, two thirds as large."""

    def made(network: nn.Module, task: Any, _watch: Any, _folder: Path) -> dict[str, Any]:
        calls.append(parameters(network))
        assert task.images.image_count == 8
        ms = {"low": 1.0, "high": 1.0}
        whole = {"file_bytes": 300, "ms": ms | {"median": 4.0}, "accuracy": {"map50_95": 0.5, "map50": 0.7}}
        small = {"file_bytes": 100, "ms": ms | {"median": 1.0}, "accuracy": {"map50_95": 0.4, "map50": 0.6}}
        return {"runtime": "onnxruntime", "file": "x", "float": whole, "int8": small}

    return made


@pytest.mark.slow
def test_every_row_is_followed_by_itself_in_eight_bits(
    digits: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Not pruned twice for it; a comparison that was ended goes on, and prunes what it did not keep again."""
    pytest.importorskip("onnxruntime")
    calls: list[int] = []
    monkeypatch.setattr("seqprune.yolo.task.eight_bits.eight_bits", floats_and_bits(calls))
    pruned: list[float] = []
    plain = METHODS["clusters"]

    def l1(*about: Any) -> nn.Module:
        pruned.append(about[2].share)
        return method("l1")(*about)

    monkeypatch.setitem(METHODS, "clusters", l1)
    state = State(tmp_path / "state")
    about: dict[str, Any] = {"targets": [0.8], "methods": ["clusters", "int8"], "imgsz": 64, "images": 8}
    about |= {"runtimes": ["onnxruntime"], "threads": 1, "state": state}
    found = compare(weights_path(), digits, **about)
    assert plain is not METHODS["clusters"]
    assert [row.method for row in found.rows] == ["unpruned", "int8", "clusters", "clusters+int8"]
    whole, bits, _, last = found.rows
    assert calls == [whole.params, last.params]
    assert pruned == [0.8]
    assert (bits.score, bits.in_floats, bits.file_bytes, bits.latency_ms) == (0.4, 0.5, 100, None)
    assert bits.times["onnxruntime"] == pytest.approx(whole.times["onnxruntime"] / 4)
    assert "0.4000 (0.5000 in floats)" in found.to_markdown()
    assert "clusters+int8" in found.to_html()
    next((tmp_path / "state").glob("*clusters+int8*")).unlink()
    again = compare(weights_path(), digits, **about)
    assert pruned == [0.8, 0.8]
    assert [row.plain() for row in again.rows] == [row.plain() for row in found.rows]


def test_eight_bits_need_a_runtime_that_makes_them(digits: Path) -> None:
    with pytest.raises(InputError, match="name onnxruntime or openvino among the runtimes"):
        compare(weights_path(), digits, targets=[0.8], methods=["l1", "int8"], imgsz=64)
