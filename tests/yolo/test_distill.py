"""Fine-tuning with the unpruned network as the teacher: the shape, the mask and the plan stay, the teacher does not."""

from __future__ import annotations

import csv
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from ultralytics import YOLO
from ultralytics.utils import DEFAULT_CFG_DICT

import seqprune
from seqprune.errors import InputError, UntrustedError
from seqprune.plan import PrunePlan
from seqprune.run import prune
from seqprune.yolo.files.load import load
from seqprune.yolo.files.networks import NETWORKS
from seqprune.yolo.files.save import save_pt
from seqprune.yolo.task.tracing import trace_detector
from seqprune.yolo.train import job as training
from seqprune.yolo.train import teacher as teachers
from seqprune.yolo.train import trainer as trainers
from seqprune.yolo.train.trainer import DetectionTrainer
from seqprune.yolo.train.tuning import _Quiet, finetune

distils = pytest.mark.skipif(
    "distill_model" not in DEFAULT_CFG_DICT, reason=f"distillation came with Ultralytics {teachers.SINCE}"
)
NAMES = {0: "green", 1: "red"}
QUICK = {"imgsz": 64, "batch": 4, "device": "cpu"}
EAGER = {**QUICK, "nbs": 4, "lr0": 0.01, "optimizer": "AdamW", "warmup_epochs": 0}
NECK = "model.15.cv2.conv"  # its output is the first of the three that are compared with the teacher's


def plan_for(model: nn.Module) -> PrunePlan:
    return PrunePlan.from_keep(trace_detector(model), {NECK: range(3, model.get_submodule(NECK).out_channels)})


def losses(folder: Path) -> list[float]:
    with (folder / "results.csv").open() as file:
        return [float(row["train/dis_loss"]) for row in csv.DictReader(file)]


def alone(model: nn.Module) -> bool:
    """Nothing of the teaching is left in a network."""
    hooks = [hook for module in model.modules() for hook in module._forward_hooks]
    return not hooks and not any("teacher" in name or "projector" in name for name, _ in model.named_modules())


@pytest.fixture
def file(tiny: nn.Module, tmp_path: Path) -> Path:
    """The unpruned network."""
    return save_pt(tiny, tmp_path / "teacher.pt", names=NAMES)


@pytest.fixture
def make(tiny: nn.Module, tmp_path: Path) -> Callable[[Callable[..., nn.Module]], Path]:
    """A pruned network, to be taught: ``make(seqprune.compact)``."""

    def pruned(apply: Callable[..., nn.Module]) -> Path:
        plan = plan_for(tiny)
        return save_pt(apply(tiny, plan), tmp_path / "pruned.pt", names=NAMES, plan_json=plan.to_json())

    return pruned


@distils
@pytest.mark.slow
@pytest.mark.parametrize("apply", [seqprune.compact, seqprune.mask])
def test_the_student_keeps_its_shape_and_is_all_that_is_saved(
    apply: Callable[..., nn.Module], tiny: nn.Module, file: Path, make: Any, data_yaml: Path, tmp_path: Path
) -> None:
    path, plan = make(apply), plan_for(tiny)
    arguments = {**EAGER, "distill_model": file}
    result = training.train(path, data_yaml, tmp_path / "runs" / "it", epochs=1, arguments=arguments)
    assert losses(result.folder)[0] > 0
    for name in ("best.pt", "last.pt"):
        opened = YOLO(result.folder / "weights" / name)
        assert type(opened.model) is NETWORKS["detect"]
        loaded = load(result.folder / "weights" / name)
        assert alone(loaded.model)
        assert alone(opened.model)
        assert loaded.plan == plan
        assert trainers.shapes_of(loaded.model) == trainers.shapes_of(apply(tiny, plan))
        assert seqprune.count_active_channels(loaded.model.get_submodule(NECK)) == len(plan.keep[NECK])
    opened.predict(torch.rand(1, 3, 64, 64), verbose=False)


@distils
@pytest.mark.slow
def test_what_is_learnt_is_not_what_is_learnt_without(tiny: nn.Module, data_yaml: Path) -> None:
    small, weights = seqprune.compact(tiny, plan_for(tiny)), deepcopy(tiny.state_dict())
    wanted = [parameter.requires_grad for parameter in tiny.parameters()]
    options = {"epochs": 1, **EAGER}
    taught, untaught = (finetune(small, data_yaml, teacher=teacher, **options) for teacher in (tiny, None))
    assert alone(taught)
    assert trainers.shapes_of(taught) == trainers.shapes_of(small)
    other = untaught.state_dict()
    assert any(not torch.equal(tensor, other[name]) for name, tensor in taught.state_dict().items())
    assert all(torch.equal(tensor, weights[name]) for name, tensor in tiny.state_dict().items())
    assert [parameter.requires_grad for parameter in tiny.parameters()] == wanted
    assert alone(tiny)


@distils
@pytest.mark.slow
def test_masked_channels_of_the_student_stay_zero_after_every_step(
    tiny: nn.Module, data_yaml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, seen = plan_for(tiny), []
    original = _Quiet.optimizer_step

    def step(self: _Quiet) -> None:
        original(self)
        both = (self.model.student_model, self.ema.ema.student_model)
        seen.append([seqprune.count_active_channels(each.get_submodule(NECK)) for each in both])

    monkeypatch.setattr(_Quiet, "optimizer_step", step)
    trained = finetune(seqprune.mask(tiny, plan), data_yaml, teacher=tiny, plan=plan, epochs=2, **EAGER)
    assert seen == [[len(plan.keep[NECK])] * 2] * 6
    assert seqprune.count_active_channels(trained.get_submodule(NECK)) == len(plan.keep[NECK])


@distils
@pytest.mark.slow
@pytest.mark.parametrize("apply", [seqprune.compact, seqprune.mask])
def test_an_interrupted_run_goes_on_with_its_teacher(
    apply: Callable[..., nn.Module],
    tiny: nn.Module,
    file: Path,
    make: Any,
    data_yaml: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A checkpoint on the way holds student and projectors; read as data, it is the student."""
    path, plan, folder = make(apply), plan_for(tiny), tmp_path / "runs" / "it"
    last = folder / "weights" / "last.pt"

    def stop(done: int, total: int, losses: object) -> None:
        if done == 2:
            raise KeyboardInterrupt

    monkeypatch.chdir(file.parent)
    arguments = {**EAGER, "distill_model": file.name}
    with pytest.raises(KeyboardInterrupt):
        training.train(path, data_yaml, folder, epochs=3, arguments=arguments, on_epoch=stop)
    loaded = load(last)
    assert alone(loaded.model)
    assert loaded.plan == plan
    with pytest.raises(InputError, match="learned from a teacher, which is not given; name its file with --distill"):
        training.resume(last, data_yaml)
    with pytest.raises(InputError, match=r"gone\.pt: no such file"):
        training.resume(last, data_yaml, arguments={"distill_model": "gone.pt"})
    result = training.resume(last, data_yaml, arguments={"device": "cpu", "distill_model": str(file)})
    assert len(losses(folder)) == 3
    assert min(losses(folder)) > 0
    loaded = load(result.best)
    assert alone(loaded.model)
    assert loaded.plan == plan
    assert seqprune.count_active_channels(loaded.model.get_submodule(NECK)) == len(plan.keep[NECK])


@distils
@pytest.mark.slow
def test_ultralytics_own_way_takes_a_teacher_too(file: Path, make: Any, data_yaml: Path, tmp_path: Path) -> None:
    model = YOLO(make(seqprune.compact))
    before = trainers.shapes_of(model.model)
    quiet = {"plots": False, "verbose": False, "workers": 0, "amp": False, "project": str(tmp_path / "runs")}
    model.train(trainer=DetectionTrainer, data=str(data_yaml), epochs=1, distill_model=str(file), **QUICK, **quiet)
    assert losses(model.trainer.save_dir)[0] > 0
    assert trainers.shapes_of(model.model) == before


@distils
@pytest.mark.slow
def test_a_process_of_several_gpus_reads_the_teacher_itself(
    tiny: nn.Module, file: Path, data_yaml: Path, tmp_path: Path
) -> None:
    """It is handed the network and the arguments, by a trainer that has looked at the teacher before."""
    small = seqprune.compact(tiny, plan_for(tiny))
    arguments = {"data": str(data_yaml), "epochs": 1, "model": "m.pt", "amp": False, "plots": False, **QUICK}
    trainer = DetectionTrainer(overrides={**arguments, "distill_model": str(file), "project": str(tmp_path / "runs")})
    trainer.model = small
    trainer.train()
    assert losses(trainer.save_dir)[0] > 0
    assert trainer.teacher is not None


@distils
@pytest.mark.slow
@pytest.mark.parametrize("apply", [seqprune.compact, seqprune.mask])
def test_the_teacher_may_be_pruned_itself(
    apply: Callable[..., nn.Module], make: Any, data_yaml: Path, tmp_path: Path
) -> None:
    path = make(apply)
    result = training.train(
        path, data_yaml, tmp_path / "runs" / "it", epochs=1, arguments={**EAGER, "distill_model": path}
    )
    assert losses(result.folder)[0] > 0


@distils
@pytest.mark.slow
@pytest.mark.parametrize("task", ["segment", "pose", "obb"])
def test_networks_with_other_heads_on_the_neck_are_taught(
    task: str, network: nn.Module, images: Path, tmp_path: Path
) -> None:
    plan = plan_for(network)
    small = seqprune.compact(network, plan)
    file = save_pt(network, tmp_path / "teacher.pt", names=NAMES)
    path = save_pt(small, tmp_path / "pruned.pt", names=NAMES, plan_json=plan.to_json())
    result = training.train(
        path, images, tmp_path / "runs" / "it", epochs=1, arguments={**EAGER, "distill_model": file}
    )
    assert losses(result.folder)[0] > 0
    assert trainers.shapes_of(load(result.best, tasks=[task]).model) == trainers.shapes_of(small)


@distils
@pytest.mark.parametrize("task", ["classify"])
def test_a_network_without_a_neck_cannot_be_taught(task: str, network: nn.Module, images: Path, tmp_path: Path) -> None:
    path = save_pt(network, tmp_path / "n.pt", names=NAMES)
    with pytest.raises(InputError, match=r"classify.*no detection head.*leave the teacher out"):
        training.train(path, images, tmp_path / "runs" / "it", epochs=1, arguments={**QUICK, "distill_model": path})
    assert not (tmp_path / "runs").exists()


class Evil:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return print, ("run",)


def other(tiny: nn.Module, folder: Path, kind: str) -> Path | str:
    """A file that cannot be the teacher of ``tiny``."""
    path, model = folder / f"{kind}.pt", deepcopy(tiny)
    if kind == "untrusted":
        torch.save({"model": Evil()}, path)
    elif kind == "task":
        segmenter: Any = NETWORKS["segment"]("yolov8n-seg.yaml", nc=2, verbose=False)  # type: ignore[call-arg]
        segmenter.task = "segment"
        save_pt(segmenter, path, names=NAMES)
    elif kind == "strides":
        model.stride = model.stride[:2]
        save_pt(model, path, names=NAMES)
    elif kind == "names":
        save_pt(model, path, names={0: "cat", 1: "dog"})
    elif kind == "classes":
        save_pt(model, path, names={0: "green", 1: "red", 2: "blue"})
    return "yolov8n.yaml" if kind == "yaml" else path


REFUSED = {
    "missing": "no such file",
    "untrusted": "may run code",
    "task": "is a model for segment, not for detection",
    "names": "was trained on other classes",
    "classes": "was trained on other classes",
    "strides": "has strides 8, 16 and 3 input channels, the network strides 8, 16, 32",
    "yaml": "has no trained weights",
}


@distils
@pytest.mark.parametrize("kind", REFUSED)
def test_who_cannot_teach_is_refused_before_anything_is_written(
    kind: str, tiny: nn.Module, make: Any, data_yaml: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, teacher = make(seqprune.compact), other(tiny, tmp_path, kind)
    arguments = {**QUICK, "distill_model": teacher}
    with pytest.raises(UntrustedError if kind == "untrusted" else InputError, match=REFUSED[kind]) as caught:
        training.train(path, data_yaml, tmp_path / "runs" / "it", epochs=1, arguments=arguments)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "runs").exists()
    with pytest.raises(InputError, match=REFUSED[kind]):
        YOLO(path).train(
            trainer=DetectionTrainer,
            data=str(data_yaml),
            epochs=1,
            distill_model=str(teacher),
            project=str(tmp_path / "runs"),
            **QUICK,
        )
    assert "run" not in capsys.readouterr().out.split()


def test_an_older_ultralytics_is_named_with_the_version_that_is_needed(
    tiny: nn.Module, file: Path, make: Any, data_yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teachers, "DEFAULT_CFG_DICT", {})
    needed = rf"no distillation, which came with {teachers.SINCE}"
    with pytest.raises(InputError, match=needed):
        training.train(
            make(seqprune.compact), data_yaml, tmp_path / "it", epochs=1, arguments={"distill_model": str(file)}
        )
    with pytest.raises(InputError, match=needed):
        finetune(tiny, data_yaml, epochs=1, teacher=tiny)
    with pytest.raises(InputError, match=needed):
        prune(file, data_yaml, finetune=1, distill=True)


@distils
@pytest.mark.slow
@pytest.mark.parametrize("mode", ["compact", "mask"])
def test_the_unpruned_network_teaches_between_the_layers_and_at_the_end(
    mode: str, file: Path, data_yaml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float] = []
    original = _Quiet.save_metrics

    def save(self: _Quiet, metrics: dict[str, float]) -> None:
        seen.append(metrics["train/dis_loss"])
        original(self, metrics)

    monkeypatch.setattr(_Quiet, "save_metrics", save)
    given: dict[str, Any] = {"imgsz": 64, "match": "all", "keep": 0.5, "layers": ["model.5.conv", NECK], "val": False}
    result = prune(file, data_yaml, mode=mode, finetune=1, finetune_step=1, distill=True, **given)  # type: ignore[arg-type]
    assert len(seen) == 3
    assert min(seen) > 0
    assert alone(result.model)
    assert result.record.settings["distill"] is True
    for layer in given["layers"]:
        assert seqprune.count_active_channels(result.model.get_submodule(layer)) == len(result.plan.keep[layer])


def test_a_teacher_without_any_training_is_bad_usage(file: Path, data_yaml: Path) -> None:
    with pytest.raises(InputError, match=r"distill.*finetune"):
        prune(file, data_yaml, distill=True)
