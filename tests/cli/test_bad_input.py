"""What cannot be used: one line that says what and what to do, exit code 2, and nothing written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import seqprune.run
from seqprune.errors import SeqPruneError

MODEL = "yolov8n.yaml"


def one_line(err: str) -> str:
    assert re.fullmatch(r"error: [^\n]+\n", err), err
    assert "Traceback" not in err
    return err


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ((), "Missing command; see `seqprune --help`"),
        (("prune",), "see `seqprune prune --help`"),
        (("prune", MODEL), "--data"),
        (("shrink",), "shrink"),
        (("prune", MODEL, "--data", "d.yaml", "--depth", "3"), "--depth"),
        (("prune", MODEL, "--data", "d.yaml", "--layers", "many"), "Invalid value for '--layers'"),
        (("prune", MODEL, "--data", "d.yaml", "--blocks", "5-1"), "'5-1' names no blocks: write 1-5"),
        (
            ("prune", MODEL, "--data", "d.yaml", "--layer", "model.1.conv", "--layers", "2"),
            "leave out --layers",
        ),
        (("prune", MODEL, "--data", "d.yaml", "--keep", "0"), "a keep ratio of 0 is outside (0, 1]"),
        (("prune", MODEL, "--data", "d.yaml", "--keep", "1.5"), "a keep ratio of 1.5 is outside (0, 1]"),
        (("prune", MODEL, "--data", "d.yaml", "--keep", "nan"), "a keep ratio of nan is outside (0, 1]"),
        (
            ("prune", MODEL, "--data", "d.yaml", "--keep", "elbow"),
            "choose knee, interpolated-knee or a ratio",
        ),
        (("prune", MODEL, "--data", "d.yaml", "--match", "twice"), "choose once, each, all"),
        (("prune", MODEL, "--data", "d.yaml", "--represent", "best"), "choose weight, medoid, gamma"),
        (("prune", MODEL, "--data", "d.yaml", "--preset", "leaf"), "there is no preset 'leaf': choose activation"),
        (("prune", MODEL, "--data", "d.yaml", "--mode", "crush"), "mode is compact or mask"),
        (("prune", MODEL, "--data", "d.yaml", "--batch", "0"), "batch"),
        (("prune", MODEL, "--data", "d.yaml", "--finetune", "-1"), "finetune"),
        (("prune", MODEL, "--data", "d.yaml", "--device", "99"), "99"),
        (("prune", MODEL, "--data", "d.yaml", "--seed", "-1"), "seed=-1: give a whole number, 0 or more"),
        (
            ("prune", MODEL, "--data", "d.yaml", "--finetune-step", "1", "--recover", "ls"),
            "recover=ls fits to the weights as they were",
        ),
        (("prune", MODEL, "--preset", "fast", "--layers", "7"), "leave out layers and blocks"),
        (("prune", MODEL, "--preset", "fast", "--blocks", "1-2"), "leave out layers and blocks"),
        (("prune", MODEL, "--data", "d.yaml", "--name", "a/b"), "--name 'a/b' is no folder name"),
        (("prune", "nowhere.pt", "--data", "d.yaml"), "nowhere.pt: no such file; check the path"),
        (("inspect", "nowhere.pt"), "nowhere.pt: no such file; check the path"),
        (("inspect", "nowhere.yaml"), "nowhere.yaml"),
        (("prune", "nowhere.pt"), "nowhere.pt: no such file; check the path"),
        (("prune", "nowhere.pt", "--preset", "none", "--batch", "0"), "nowhere.pt: no such file; check the path"),
        (("prune", "nowhere.yaml"), "nowhere.yaml: no such file, and no model YAML"),
        (("prune", "nowhere.safetensors"), "nowhere.safetensors: no such file"),
        (("finetune", "nowhere.pt"), "nowhere.pt: no such file; check the path; --data and --epochs are missing"),
        (("compare", "nowhere.pt"), "nowhere.pt: no such file; check the path"),
        (("sensitivity", "nowhere.pt"), "nowhere.pt: no such file; check the path"),
        (("sensitivity", MODEL), "--data is missing"),
    ],
)
def test_usage_and_numbers(
    run: Any, args: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*args)
    assert code == 2
    assert said in one_line(err)
    assert out == ""
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--layer", "model.5.cnov"), "no layer model.5.cnov; did you mean model.5.conv"),
        (("--layer", "model.22.dfl.conv"), "model.22.dfl.conv cannot be pruned"),
        (("--blocks", "1-40"), "no block 23: its blocks are 0 to 22"),
        (("--layers", "100"), "100 layers asked for"),
        (("--data", "missing.yaml"), "missing.yaml"),
    ],
)
def test_layers_blocks_and_data(run: Any, args: tuple[str, ...], said: str, data: Path, project: Path) -> None:
    given = () if "--data" in args else ("--data", data)
    code, _, err = run("prune", MODEL, *given, *args, "--imgsz", 64, "--no-val", "--project", project)
    assert code == 2
    assert said in one_line(err)
    assert not project.exists()


def test_a_target_that_cannot_be_met_names_the_options(run: Any, project: Path) -> None:
    """ "Lower the floor" named no option: there is none."""
    code, _, err = run("prune", MODEL, "--preset", "fast", "--target", "params=0.001", "--project", project)
    assert code == 2
    assert "take a greater target (--target), protect less (--protect), or round counts up by less" in one_line(err)


def test_a_file_that_is_no_checkpoint(run: Any, tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_text("not weights")
    code, _, err = run("inspect", tmp_path / "text.pt")
    assert code == 2
    assert "not a PyTorch checkpoint" in one_line(err)


def test_an_output_folder_that_exists_is_left_as_it_is(
    run: Any, data: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = project / "mine" / "weights" / "pruned.pt"
    kept.parent.mkdir(parents=True)
    kept.write_text("precious")
    monkeypatch.setattr(seqprune.run, "prune", lambda *_, **__: pytest.fail("worked before looking"))
    code, _, err = run("prune", MODEL, "--data", data, "--project", project, "--name", "mine")
    assert code == 2
    assert "exists and is left as it is: give another --name" in one_line(err)
    assert [file for file in project.rglob("*") if file.is_file()] == [kept]
    assert kept.read_text() == "precious"


def test_a_project_folder_that_is_a_file(run: Any, data: Path, tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    code, _, err = run("prune", MODEL, "--data", data, "--project", tmp_path / "runs")
    assert code == 2
    assert "give another --project" in one_line(err)


@pytest.mark.parametrize(("error", "code"), [(SeqPruneError("no\nlayer"), 1), (KeyboardInterrupt(), 130)])
def test_work_that_fails(
    run: Any, data: Path, project: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(seqprune.run, "prune", fail)
    seen, _, err = run("prune", MODEL, "--data", data, "--project", project)
    assert seen == code
    assert one_line(err) == ("error: no layer\n" if code == 1 else "error: interrupted\n")
    assert not project.exists()


def test_debug_shows_the_traceback_wherever_it_stands(run: Any) -> None:
    for args in (("--debug", "inspect", "nowhere.pt"), ("inspect", "nowhere.pt", "--debug")):
        code, _, err = run(*args)
        assert code == 2
        assert "Traceback" in err
        assert "ModelError" in err


def test_a_bug_is_one_line_and_says_so(process: Any) -> None:
    before = "import seqprune.select.layers as room\nroom.parse_blocks = lambda _: 1 / 0"
    code, _, err = process("prune", MODEL, "--data", "d.yaml", "--blocks", "1-5", before=before)
    assert code == 1
    assert "unexpected ZeroDivisionError: division by zero; this is a bug, run again with --debug" in one_line(err)


@pytest.mark.parametrize("keep", ["", "kept"])
def test_a_demo_that_fails_leaves_nothing(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: str) -> None:
    import seqprune.demo.run

    used: list[Path] = []

    def fail(folder: Path, **_: object) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "digits").mkdir()
        used.append(folder)
        raise SeqPruneError("no layer was pruned")

    monkeypatch.setattr(seqprune.demo.run, "demo", fail)
    code, _, err = run("demo", *(("--keep-files", tmp_path / keep) if keep else ()))
    assert code == 1
    one_line(err)
    assert used
    assert not used[0].exists()


def test_the_demo_overwrites_nothing(run: Any, tmp_path: Path) -> None:
    code, _, err = run("demo", "--keep-files", tmp_path)
    assert code == 2
    assert "exists and is left as it is" in one_line(err)
