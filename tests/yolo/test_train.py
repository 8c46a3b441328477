"""Training to files: every task in its pruned shape, several GPUs, and plain Ultralytics' refusal to widen."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from ultralytics import YOLO
from ultralytics.utils.dist import ddp_cleanup, generate_ddp_file

import seqprune
from seqprune.errors import InputError, ModelError, TrainingError
from seqprune.plan import PrunePlan
from seqprune.yolo.files.load import load
from seqprune.yolo.files.networks import NETWORKS
from seqprune.yolo.files.pruned import TRAINERS, plan_of, remember
from seqprune.yolo.files.save import save_pt
from seqprune.yolo.task.tracing import trace_detector
from seqprune.yolo.train import job as training
from seqprune.yolo.train import trainer as trainers

NAMES = {0: "green", 1: "red"}
QUICK = {"imgsz": 64, "batch": 4, "device": "cpu"}
EAGER = {**QUICK, "nbs": 4, "lr0": 0.01, "optimizer": "AdamW", "warmup_epochs": 0}
LAYER = "model.4.m.0.cv1.conv"


def plan_for(model: nn.Module) -> PrunePlan:
    return PrunePlan.from_keep(trace_detector(model), {LAYER: range(3, model.get_submodule(LAYER).out_channels)})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "apply"),
    [*((task, seqprune.compact) for task in NETWORKS), ("detect", seqprune.mask), ("pose", seqprune.mask)],
)
def test_every_task_is_trained_in_the_plans_shape(
    task: str, apply: Callable[..., nn.Module], network: nn.Module, images: Path, tmp_path: Path, listing: Any
) -> None:
    plan = plan_for(network)
    pruned = apply(network, plan)
    path = save_pt(pruned, tmp_path / "pruned.pt", names=NAMES, plan_json=plan.to_json())
    root = images if images.is_dir() else images.parent
    before = listing(root)
    result = training.train(path, images, tmp_path / "runs" / "one", epochs=1, arguments=EAGER)
    assert result.folder == tmp_path / "runs" / "one"
    assert PrunePlan.load(result.folder / "plan.json") == plan
    assert result.metrics
    for name in ("best.pt", "last.pt"):
        loaded = load(result.folder / "weights" / name, tasks=[task])
        assert trainers.shapes_of(loaded.model) == trainers.shapes_of(pruned)
        assert (loaded.plan, loaded.task) == (plan, task)
        assert seqprune.count_active_channels(loaded.model.get_submodule(LAYER)) == len(plan.keep[LAYER])
        weights = loaded.model.get_submodule(LAYER).weight
        assert not torch.equal(weights, pruned.half().float().get_submodule(LAYER).weight)
        plain = torch.load(result.folder / "weights" / name, weights_only=False)["model"]
        with pytest.raises(KeyError, match=rf"this network was pruned.*seqprune\.yolo\.{TRAINERS[task]}\)"):
            type(plain)(plain.yaml, verbose=False)  # what plain Ultralytics does to train
    assert listing(root) == before


@pytest.mark.slow
def test_an_interrupted_run_goes_on_in_its_folder(tiny: nn.Module, data_yaml: Path, tmp_path: Path) -> None:
    plan = plan_for(tiny)
    path = save_pt(seqprune.compact(tiny, plan), tmp_path / "small.pt", names=NAMES, plan_json=plan.to_json())
    folder = tmp_path / "runs" / "it"

    def stop(done: int, total: int, losses: object) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.train(path, data_yaml, folder, epochs=3, arguments=EAGER, on_epoch=stop)
    with pytest.raises(InputError, match="seed=7 cannot be changed in a run that was begun"):
        training.resume(folder / "weights" / "last.pt", data_yaml, arguments={"device": "cpu", "seed": 7})
    seen: list[int] = []
    result = training.resume(
        folder / "weights" / "last.pt",
        data_yaml,
        arguments={"device": "cpu"},
        on_epoch=lambda done, *_: seen.append(done),
    )
    assert seen == [2, 3]
    assert result.folder == folder
    assert load(result.best).plan == plan
    with pytest.raises(InputError, match="no run to resume"):
        training.resume(folder / "weights" / "last.pt", data_yaml)


@pytest.mark.slow
@pytest.mark.parametrize("apply", [seqprune.compact, seqprune.mask])
def test_training_stops_early_without_gain(
    apply: Callable[..., nn.Module], tiny: nn.Module, data_yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two epochs after the best one, here the first; then the best checkpoint is evaluated, and checked."""
    plan = plan_for(tiny)
    path = save_pt(apply(tiny, plan), tmp_path / "m.pt", names=NAMES, plan_json=plan.to_json())
    monkeypatch.setattr(trainers.DetectionTrainer, "validate", lambda self: ({}, 0.5))
    seen: list[int] = []
    result = training.train(
        path, data_yaml, tmp_path / "runs" / "it", epochs=9, arguments=EAGER | {"patience": 2},
        on_epoch=lambda done, *_: seen.append(done),
    )  # fmt: skip
    assert seen == [1, 2, 3]
    loaded = load(result.best)
    assert loaded.plan == plan
    assert seqprune.count_active_channels(loaded.model.get_submodule(LAYER)) == len(plan.keep[LAYER])


@pytest.mark.parametrize(
    ("change", "arguments", "said"),
    [
        ("val: images/nowhere", {}, "cannot be used"),
        ("train: unlabelled", {}, "no labelled object"),
        ("", {"imgsz": 0}, "imgsz=0"),
        ("", {"batch": 0}, "batch=0"),
        ("", {"lr0": "much"}, "'lr0=much' is of invalid type str"),
        ("", {"device": "99"}, "Invalid CUDA 'device=99'"),
    ],
)
def test_what_cannot_be_used_leaves_no_folder(
    change: str, arguments: dict[str, Any], said: str, tiny: nn.Module, data_yaml: Path, tmp_path: Path
) -> None:
    path = save_pt(tiny, tmp_path / "m.pt", names=NAMES)
    (data_yaml.parent / "unlabelled").mkdir()
    shutil.copy(data_yaml.parent / "images" / "train" / "00.jpg", data_yaml.parent / "unlabelled" / "00.jpg")
    described = {line.partition(":")[0]: line for line in ("train: images/train", "val: images/val", f"names: {NAMES}")}
    described |= {change.partition(":")[0]: change} if change else {}
    data_yaml.write_text("\n".join(described.values()))
    with pytest.raises(InputError, match=said) as caught:
        training.train(path, data_yaml, tmp_path / "runs" / "it", epochs=1, arguments=QUICK | arguments)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "runs" / "it").exists()


@pytest.mark.slow
def test_training_that_widens_is_an_error(
    tiny: nn.Module, data_yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_for(tiny)
    path = save_pt(seqprune.compact(tiny, plan), tmp_path / "small.pt", names=NAMES, plan_json=plan.to_json())

    def widened(self: Any, cfg: Any = None, weights: Any = None, verbose: bool = True) -> nn.Module:
        wide = deepcopy(tiny)
        for parameter in wide.parameters():
            parameter.requires_grad = True
        return wide

    monkeypatch.setattr(trainers.DetectionTrainer, "get_model", widened)
    with pytest.raises(TrainingError, match=r"changed the shape of model\.4\.m\.0"):
        training.train(path, data_yaml, tmp_path / "runs" / "it", epochs=1, arguments=QUICK)


def test_a_network_out_of_its_plans_shape_is_refused(
    tiny: nn.Module, narrow: Any, data_yaml: Path, tmp_path: Path
) -> None:
    path = save_pt(narrow(narrow(tiny)), tmp_path / "m.pt", names=NAMES, plan_json=plan_for(tiny).to_json())
    with pytest.raises(ModelError, match="where its plan leaves"):
        training.train(path, data_yaml, tmp_path / "runs" / "it", epochs=1)
    assert not (tmp_path / "runs").exists()


IN_A_WORKER = """
import runpy, sys
from ultralytics.engine.trainer import BaseTrainer
def train(self):
    from seqprune.yolo.files.pruned import plan_of
    network = self.model if hasattr(self.model, "state_dict") else None
    print(type(self).__module__, type(self).__name__, network is None or plan_of(network) is not None)
BaseTrainer.train = train
runpy.run_path(sys.argv[1], run_name="__main__")
"""


@pytest.mark.slow
def test_the_processes_of_several_gpus_import_the_trainer_and_get_the_plan(
    tiny: nn.Module, data_yaml: Path, tmp_path: Path
) -> None:
    """Ultralytics starts them with a file that it writes; what it says is run here in one process, on the CPU."""
    plan = plan_for(tiny)
    path = save_pt(seqprune.mask(tiny, plan), tmp_path / "masked.pt", names=NAMES, plan_json=plan.to_json())
    opened = YOLO(path)
    arguments = {"model": str(path), "data": str(data_yaml), "project": str(tmp_path / "runs"), **QUICK}
    trainer = trainers.DetectionTrainer(overrides=arguments)
    trainer.model = trainer.get_model(weights=opened.model, cfg=opened.model.yaml)
    file = generate_ddp_file(trainer)
    try:
        command = [sys.executable, "-c", IN_A_WORKER, file]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)  # noqa: S603
    finally:
        ddp_cleanup(trainer, file)
    assert done.stdout.splitlines()[-1:] == ["seqprune.yolo.train.trainer DetectionTrainer True"], done.stderr[-2000:]


PLAIN = """
import sys
sys.modules["seqprune"] = None
import torch
from ultralytics import YOLO
weights, data, folder, resumable = sys.argv[1:]
common = dict(imgsz=64, device="cpu", verbose=False, project=folder)
model = YOLO(weights)
model.info()
before = {name: tensor.shape for name, tensor in model.model.state_dict().items()}
for file, arguments in ((weights, {}), (weights, {"pretrained": False}), (resumable, {"resume": True})):
    try:
        YOLO(file).train(data=data, epochs=1, plots=False, **arguments, **common)
    except KeyError as error:
        print(error)
    else:
        raise SystemExit("it was trained")
assert "seqprune" not in {name.partition(".")[0] for name, module in sys.modules.items() if module}
"""


@pytest.mark.slow
def test_plain_ultralytics_refuses_to_train_and_names_the_remedy(
    tiny: nn.Module, data_yaml: Path, tmp_path: Path
) -> None:
    """It gave back the full width with random weights, and said nothing."""
    plan = plan_for(tiny)
    small = seqprune.compact(tiny, plan)
    path = save_pt(small, tmp_path / "small.pt", names=NAMES, plan_json=plan.to_json())
    stopped = torch.load(path, weights_only=False)
    optimizer = torch.optim.SGD(small.parameters(), 0.1).state_dict()
    arguments = {"data": str(data_yaml), "epochs": 2, "task": "detect", "model": str(path)}
    stopped |= {"epoch": 0, "optimizer": optimizer, "train_args": arguments, "ema": stopped["model"], "model": None}
    torch.save(stopped, tmp_path / "last.pt")
    arguments = [str(part) for part in (path, data_yaml, tmp_path / "runs", tmp_path / "last.pt")]
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", PLAIN, *arguments], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("trainer=seqprune.yolo.DetectionTrainer") == 3
    assert done.stdout.count("`seqprune finetune`") == 3


@pytest.mark.parametrize("task", NETWORKS)
def test_the_remedy_names_the_tasks_own_trainer(task: str, network: nn.Module) -> None:
    remember(network, plan_for(network).to_json())
    assert plan_of(network) == plan_for(network)
    with pytest.raises(KeyError, match=rf"this network was pruned.*seqprune\.yolo\.{TRAINERS[task]}\)"):
        type(network)(network.yaml, verbose=False)
    assert issubclass(getattr(seqprune.yolo, TRAINERS[task]), trainers.KeepsShape)
