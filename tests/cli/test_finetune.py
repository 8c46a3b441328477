"""``seqprune finetune``, and fine-tuning while pruning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ultralytics.utils import DEFAULT_CFG_DICT

from seqprune.plan import PrunePlan
from seqprune.report.screen import Screen
from seqprune.yolo.files.load import load
from seqprune.yolo.files.save import save_pt
from seqprune.yolo.train.teacher import SINCE

MODEL = "yolov8n.yaml"
MEASURED = ("--match", "all", "--imgsz", "64", "--keep", "0.5", "--layer", "model.1.conv")
PRUNE = (*MEASURED, "--no-val")
QUICK = ("--imgsz", "64", "--batch", "4", "--device", "cpu")


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["compact", "mask"])
def test_prune_then_finetune_then_prune_again(run: Any, data: Path, tmp_path: Path, mode: str) -> None:
    """Every file goes into the next command, and each says the truth about its own step."""
    tuned = ("--finetune-step", 1, "--finetune", 1)
    code, out, err = run("prune", MODEL, "--data", data, *MEASURED, *tuned, "--mode", mode, "--project", tmp_path / "p")
    assert code == 0, err
    assert out.count("fine-tune 1 epochs") == 2  # after the one layer, and at the end
    along = json.loads((tmp_path / "p" / "yolov8n" / "report.json").read_text())["along"]
    assert [point["what"] for point in along] == ["model.1.conv", "pruning"]
    pruned = tmp_path / "p" / "yolov8n" / "weights" / "pruned.pt"
    plan = PrunePlan.load(tmp_path / "p" / "yolov8n" / "plan.json")
    code, out, err = run("finetune", pruned, "--data", data, "--epochs", 1, *QUICK, "--project", tmp_path / "f")
    assert code == 0, err
    assert "epoch 1/1" in out
    assert "mAP50-95(B)" in out
    folder = tmp_path / "f" / "pruned"
    page, made = (folder / name for name in ("report.html", "again.html"))
    written = {"weights", "plan.json", "results.csv", "args.yaml", "report.json", page.name}
    assert {entry.name for entry in folder.iterdir()} == written
    assert "trained for 1 epoch" in page.read_text()
    assert run("report", folder, "--out", made)[0] == 0
    assert made.read_text() == page.read_text()
    assert PrunePlan.load(folder / "plan.json") == plan
    best = folder / "weights" / "best.pt"
    assert load(best).plan == plan
    code, _, err = run(
        "prune", best, "--data", data, "--match", "all", "--imgsz", 64, "--keep", 0.5, "--no-val",
        "--layer", "model.3.conv", "--project", tmp_path / "again",
    )  # fmt: skip
    assert code == 0, err
    report = json.loads((tmp_path / "again" / "best" / "report.json").read_text())
    network = load(tmp_path / "again" / "best" / "weights" / "pruned.pt").model
    assert network.get_submodule("model.1.conv").out_channels == len(plan.keep["model.1.conv"])
    assert network.get_submodule("model.3.conv").out_channels == report["steps"][0]["active_after"]


@pytest.mark.slow
def test_an_interrupted_run_says_how_it_goes_on_and_does(
    run: Any, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(_screen: Screen, done: int, _total: int, _losses: object) -> None:
        if done == 2:
            raise KeyboardInterrupt

    options = ("--data", data, "--epochs", 2, *QUICK, "--project", tmp_path)
    with monkeypatch.context() as interrupted:
        interrupted.setattr(Screen, "epoch", stop)
        code, out, _ = run("finetune", MODEL, *options)
    last = tmp_path / "yolov8n" / "weights" / "last.pt"
    assert code == 130
    assert f"`seqprune finetune {last} --resume --data {data}` goes on from here" in out
    code, out, err = run("finetune", last, "--resume", "--data", data, "--device", "cpu")
    assert code == 0, err
    assert "epoch 2/2" in out
    assert "epoch 1/2" not in out


@pytest.mark.slow
@pytest.mark.skipif("distill_model" not in DEFAULT_CFG_DICT, reason=f"distillation came with Ultralytics {SINCE}")
def test_the_unpruned_network_teaches(run: Any, data: Path, tmp_path: Path) -> None:
    whole = load(MODEL)
    teacher = save_pt(whole.model, tmp_path / "whole.pt", names=whole.names)
    code, _, err = run(
        "prune", teacher, "--data", data, *PRUNE, "--finetune", 1, "--distill", "--project", tmp_path / "p"
    )
    assert code == 0, err
    report = json.loads((tmp_path / "p" / "whole" / "report.json").read_text())
    assert report["settings"]["distill"] is True
    pruned = tmp_path / "p" / "whole" / "weights" / "pruned.pt"
    plan = load(pruned).plan
    target = ("--epochs", 1, *QUICK, "--project", tmp_path / "f", "--set", "optimizer=SGD")
    code, _, err = run("finetune", pruned, "--data", data, "--distill", "gone.pt", *target)
    assert (code, err) == (2, "error: gone.pt: no such file; check the path\n")
    code, _, err = run("finetune", pruned, "--data", data, "--distill", teacher, *target)
    assert code == 0, err
    folder = tmp_path / "f" / "pruned"
    assert "train/dis_loss" in (folder / "results.csv").read_text()
    assert load(folder / "weights" / "best.pt").plan == plan


def test_a_teacher_without_training_is_bad_usage(run: Any, data: Path, tmp_path: Path) -> None:
    code, out, err = run("prune", MODEL, "--data", data, "--distill", "--project", tmp_path / "p")
    assert (code, out) == (2, "")
    assert err == "error: distill teaches while fine-tuning: give finetune or finetune_step too, or leave it out\n"
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ((), "--data and --epochs are missing"),
        (("--data", "d.yaml"), "--data and --epochs are missing"),
        (("--resume", "--epochs", "3"), "leave out --epochs, --name"),
        (("--resume", "--project", "p"), "leave out --epochs, --name, --project"),
        (("--data", "d.yaml", "--epochs", "0"), "epochs=0 must be at least 1"),
        (("--data", "d.yaml", "--epochs", "1"), "nowhere.pt: no such file"),
        (("--resume",), "nowhere.pt: no such file"),
        (("--data", "d.yaml", "--epochs", "1", "--set", "lr0"), "--set lr0: no name and value"),
        (("--data", "d.yaml", "--epochs", "1", "--set", "lr0=["), "is no YAML value"),
        (("--data", "d.yaml", "--epochs", "1", "--set", "lrate=1"), "lrate is no training argument"),
        (("--data", "d.yaml", "--epochs", "1", "--set", "model=x.pt"), "model is not a choice"),
    ],
)
def test_bad_usage(run: Any, args: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run("finetune", "nowhere.pt", *args)
    assert code == 2
    assert said in err
    assert err.count("\n") == 1
    assert out == ""
    assert not list(tmp_path.iterdir())
