"""How commands speak: the first line, hints, one JSON document, little, or much."""

from __future__ import annotations

import io
import json
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from seqprune.cli.app import call
from seqprune.cli.hints import rewritten
from seqprune.engine.presets import UNASKED, preset_of
from seqprune.engine.settings import Choose, Look, Train, as_plain
from seqprune.report.screen import Screen

MODEL = "yolov8n.yaml"
QUICK = ("--match", "all", "--imgsz", "64", "--keep", "0.5", "--no-val", "--layers", 1)
COMMANDS = ("prune", "finetune", "demo", "report", "inspect", "bench", "compare", "sensitivity", "reproduce")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_the_common_options(command: str, capsys: Any) -> None:
    assert call([command, "-h"]) == 0
    shown = capsys.readouterr().out
    assert all(option in shown for option in ("--json", "--quiet", "--verbose", "--version", "-h"))
    assert call([command, "--version"]) == 0
    assert capsys.readouterr().out == f"seqprune {metadata.version('seqprune')}\n"


@pytest.mark.parametrize(
    ("preset", "target", "criterion", "meant"),
    [
        (None, None, None, "activation"),
        (None, "flops=0.8", None, "accurate"),
        (None, "flops=0.8", "l1", "fast"),
        ("fast", "flops=0.8", None, "fast"),
        ("seed", None, None, "activation"),
    ],
)
def test_a_target_chooses_what_keeps_accuracy(
    preset: str | None, target: str | None, criterion: str | None, meant: str
) -> None:
    assert preset_of(preset, target, criterion) == meant


def test_a_run_that_was_begun_under_the_old_name_goes_on() -> None:
    """The folder of a run holds the words it began with, and another word refuses to go on."""
    old, new = (as_plain(Look(), Choose(preset=name), Train()) for name in ("seed", "activation"))
    assert old == new
    assert new["preset"] == "seed"


def test_the_first_line_says_what_nothing_asked_for_costs(run: Any, data: Path, tmp_path: Path) -> None:
    code, out, err = run("prune", MODEL, "--data", data, *QUICK, "--project", tmp_path)
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == f"note: {UNASKED}"
    code, out, _ = run("prune", MODEL, "--data", data, *QUICK, "--project", tmp_path, "--preset", "seed")
    assert code == 0
    assert "note:" not in out
    assert json.loads((tmp_path / "yolov8n-2" / "report.json").read_text())["preset"] == "activation"


def test_json_is_the_only_thing_on_standard_output(run: Any, data: Path, tmp_path: Path) -> None:
    code, out, err = run("prune", MODEL, "--data", data, *QUICK, "--project", tmp_path, "--json")
    assert code == 0
    said = json.loads(out)
    assert said["folder"] == str(tmp_path / "yolov8n")
    assert said["after"]["params"] < said["before"]["params"]
    assert "step 1" in err


def test_quiet_leaves_the_result(run: Any, data: Path, tmp_path: Path) -> None:
    code, out, err = run("prune", MODEL, "--data", data, *QUICK, "--project", tmp_path, "--quiet")
    assert (code, err) == (0, "")
    assert "step 1" not in out
    assert "observe" not in out
    assert "parameters" in out


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("prune model=yolov8n.pt data=coco128.yaml", "seqprune prune yolov8n.pt --data coco128.yaml"),
        ("model=yolov8n.pt data=d.yaml", "seqprune prune yolov8n.pt --data d.yaml"),
        (
            "prune yolov8n.pt data=d.yaml --target flops=0.8",
            "seqprune prune yolov8n.pt --data d.yaml --target flops=0.8",
        ),
        ("finetune m.pt data=d.yaml lr0=0.1", "seqprune finetune m.pt --data d.yaml --set lr0=0.1"),
        ("train model=m.pt data=d.yaml lr0=0.1", "seqprune finetune m.pt --data d.yaml --set lr0=0.1"),
        ("prune m.pt flops=0.8 data=d.yaml", "seqprune prune m.pt --target flops=0.8 --data d.yaml"),
        ("prune m.pt --target flops=0.8", None),
        ("finetune m.pt --set lr0=0.1 --set mosaic=0", None),
        ("inspect m.pt", None),
    ],
)
def test_arguments_of_ultralytics_are_answered_with_ours(typed: str, meant: str | None) -> None:
    assert rewritten(typed.split()) == meant


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("export model=pruned.pt format=onnx", "takes a pruned .pt as it is: yolo export model=pruned.pt format=onnx"),
        ("detect val pruned.pt", "takes a pruned .pt as it is: yolo val pruned.pt"),
        ("train m.pt --data d.yaml", "`train` is called finetune here; write: seqprune finetune m.pt --data d.yaml"),
        ("detect train model=m.pt", "write: seqprune finetune m.pt"),
        ("benchmark m.pt", "write: seqprune bench m.pt"),
    ],
)
def test_commands_of_ultralytics_are_answered_too(typed: str, said: str, capsys: Any) -> None:
    assert call(typed.split()) == 2
    assert capsys.readouterr().err.endswith(f"{said}\n")


def test_the_hint_is_one_line(capsys: Any) -> None:
    assert call(["prune", "model=a.pt", "data=b.yaml"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "error: arguments are not written key=value here; write: seqprune prune a.pt --data b.yaml\n"


class _Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_pipe_gets_a_line_every_few_seconds_and_not_for_every_batch() -> None:
    """A stage that took minutes was silent from its name to the next."""
    clock, console = _Clock(), Console(file=io.StringIO(), width=200)
    screen = Screen(console, clock=clock)
    screen.stage("observe", 32)
    for _ in range(8):
        clock.now += 2.0
        screen.progress_by(4)
    assert console.file.getvalue().splitlines() == [  # type: ignore[attr-defined]
        "observe",
        "observe 12/32 images, about 10 s left",
        "observe 24/32 images, about 4 s left",
    ]


def test_what_went_before_the_first_image_is_no_time_of_an_image() -> None:
    """A method of ``compare`` chose for four minutes, and 150 images to come were to take 42 more."""
    clock, console = _Clock(), Console(file=io.StringIO(), width=200)
    screen = Screen(console, clock=clock)
    screen.stage("accurate at 0.8", None)
    clock.now += 240.0
    screen.expect(32)
    clock.now += 2.0
    screen.progress_by(4)
    assert console.file.getvalue().splitlines() == [  # type: ignore[attr-defined]
        "accurate at 0.8",
        "accurate at 0.8 4/32 images, about 14 s left",
    ]


def test_a_stage_with_nothing_to_count_says_that_it_goes_on() -> None:
    """Layers timed in a runtime, one after the other, were silent for minutes."""
    clock, console = _Clock(), Console(file=io.StringIO(), width=200)
    screen = Screen(console, clock=clock)
    screen.beat()
    screen.stage("factor", None)
    for _ in range(7):
        clock.now += 10.0
        screen.beat()
    screen.epoch(1, 8, {})
    screen.beat()
    assert console.file.getvalue().splitlines() == [  # type: ignore[attr-defined]
        "factor",
        "factor, 30 s so far",
        "factor, 60 s so far",
        "epoch 1/8",
    ]


@pytest.mark.parametrize("quiet", [False, True])
def test_a_pipe_hears_by_itself_that_a_stage_goes_on(monkeypatch: pytest.MonkeyPatch, quiet: bool) -> None:
    monkeypatch.setattr("seqprune.report.screen.EVERY", 0.01)
    monkeypatch.setattr("seqprune.report.screen.SILENT", 0.02)
    console = Console(file=io.StringIO(), width=200)
    with Screen(console, quiet=quiet) as screen:
        screen.stage("factor", None)
        time.sleep(0.3)
    assert ("factor, 0 s so far" in console.file.getvalue()) is not quiet  # type: ignore[attr-defined]


def test_epochs_come_with_their_losses() -> None:
    console = Console(file=io.StringIO(), width=200)
    Screen(console).epoch(1, 8, {"box": 1.25, "cls": 0.5})
    assert console.file.getvalue() == "epoch 1/8  box 1.250  cls 0.500\n"  # type: ignore[attr-defined]


def test_verbose_says_how_long_a_stage_took() -> None:
    clock, console = _Clock(), Console(file=io.StringIO(), width=200)
    with Screen(console, verbose=True, clock=clock) as screen:
        screen.stage("observe", 32)
        clock.now = 1.5
    assert "observe: 1.5 s" in console.file.getvalue()  # type: ignore[attr-defined]


def test_short_parts_of_one_stage_are_not_a_line_each() -> None:
    """A repair of forty parts would be forty lines in a log."""
    clock, console = _Clock(), Console(file=io.StringIO(), width=200)
    screen = Screen(console, clock=clock)
    for part in range(1, 9):
        screen.stage(f"recover: part {part} of 8", 32)
        clock.now += 2.0
    assert console.file.getvalue().splitlines() == [  # type: ignore[attr-defined]
        "recover: part 1 of 8",
        "recover: part 4 of 8",
        "recover: part 7 of 8",
    ]


def test_a_measurement_counts_its_images_when_it_knows_them(run: Any, data: Path, tmp_path: Path) -> None:
    from seqprune.engine.listener import Listener
    from seqprune.run import prune

    heard: list[tuple[str, int]] = []
    told = Listener(
        stage=lambda name, total: heard.append((name, total or 0)),
        expect=lambda total: heard.append(("expect", total)),
        progress=lambda images: heard.append(("images", images)),
    )
    prune(MODEL, data, match="all", imgsz=64, keep=0.5, layers=["model.1.conv", "model.3.conv"], batch=8, listener=told)
    assert heard[:3] == [("measure before", 0), ("expect", 2), ("images", 2)]
    for layer in (1, 2):
        begun = heard.index((f"observe: layer {layer} of 2", 12))
        seen = [count for what, count in heard[begun + 1 : begun + 3] if what == "images"]
        assert sum(seen) == 12  # what was asked for, and not as often as the network was run
