"""``seqprune compare`` and ``seqprune sensitivity`` that were ended go on row by row."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import seqprune.yolo.task.task
from seqprune.cli.interrupts import Interrupted
from seqprune.cli.measuring import COMPARE as MEASURED
from seqprune.cli.opening import OPENED
from seqprune.cli.resuming import RUN, asked_of
from seqprune.errors import InputError, LostError

SMALL = ("--imgsz", "32", "--batch", "4")
COMPARE = ("--target", "params=0.7,0.5", "--images", "4", "--methods", "l1-global,clusters,random", *SMALL)
SENSITIVITY = ("--layers", "model.1.conv,model.3.conv", "--ratios", "0.5,0.25", "--images", "1", *SMALL)


@pytest.fixture
def ends_at(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[int]]:
    """Lets so many networks be measured, and then something happens; returns those that were."""

    def patch(last: int | None, error: BaseException | None = None) -> list[int]:
        measured: list[int] = []
        monkeypatch.undo()
        validate = seqprune.yolo.task.task.validate

        def counted(*args: Any, **options: Any) -> Any:
            if len(measured) == last:
                raise error or Interrupted
            measured.append(len(measured))
            return validate(*args, **options)

        monkeypatch.setattr(seqprune.yolo.task.task, "validate", counted)
        return measured

    return patch


def untimed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name not in ("latency_ms", "seconds")} for row in rows]


@pytest.mark.long
def test_compare_goes_on_with_the_next_row(
    run: Any, data: Path, tmp_path: Path, ends_at: Callable[..., list[int]]
) -> None:
    """Nine methods of an hour each, and nothing of them after a kill."""
    assert run("compare", "yolov8n.yaml", "--data", data, *COMPARE, "--out", tmp_path / "whole").code == 0
    whole = json.loads((tmp_path / "whole" / "compare.json").read_text())
    out = tmp_path / "new" / "ended"
    for number, last in enumerate((2, 1)):
        measured = ends_at(last)
        start = ("--resume", out) if number else ("yolov8n.yaml", "--data", data, *COMPARE, "--out", out)
        done = run("compare", *start)
        assert done.code == 130, done.err
        assert f"`seqprune compare --resume {out}` goes on from here" in done.err
        assert len(measured) == last
    assert not list(out.glob("compare.*"))
    measured = ends_at(None)
    done = run("compare", "--resume", out)
    assert (done.code, done.err) == (0, "")
    found = json.loads((out / "compare.json").read_text())
    assert len(measured) == len([row for row in found["rows"] if not row["reason"]]) - 3, "no row is measured twice"
    assert {**found, "rows": untimed(found["rows"])} == {**whole, "rows": untimed(whole["rows"])}
    assert all((row["latency_ms"] is None) == bool(row["reason"]) for row in found["rows"])
    assert {path.name for path in out.iterdir()} == {"compare.json", "compare.md", "compare.html"}
    again = run("compare", "--resume", out)
    assert again.code == 2
    assert "nothing is left to resume; see compare.html, compare.json, compare.md" in again.err


def test_sensitivity_goes_on_with_the_next_point(
    run: Any, data: Path, tmp_path: Path, ends_at: Callable[..., list[int]]
) -> None:
    whole, out = tmp_path / "whole.json", tmp_path / "ended.json"
    assert run("sensitivity", "yolov8n.yaml", "--data", data, *SENSITIVITY, "--out", whole).code == 0
    ends_at(3)
    done = run("sensitivity", "yolov8n.yaml", "--data", data, *SENSITIVITY, "--out", out)
    assert done.code == 130
    folder = tmp_path / "ended.json.run"
    assert f"`seqprune sensitivity --resume {folder}` goes on from here" in done.err
    assert not out.exists()
    again = run("sensitivity", "yolov8n.yaml", "--data", data, *SENSITIVITY, "--out", out)
    assert again.code == 2
    assert "is an unfinished run" in again.err
    measured = ends_at(None)
    done = run("sensitivity", "--resume", folder)
    assert (done.code, done.err) == (0, "")
    assert len(measured) == 2
    assert out.read_text() == whole.read_text()
    assert out.with_suffix(".html").exists()
    assert not folder.exists()


def test_images_that_are_lost_end_a_comparison_and_its_rows_stay(
    run: Any, data: Path, tmp_path: Path, ends_at: Callable[..., list[int]]
) -> None:
    """Every method after that would have had the same reason in its row."""
    out, methods = tmp_path / "ended", ("--methods", "l1-global,random", "--images", "4", *SMALL)
    ends_at(1, LostError("7.png: cannot be decoded"))
    done = run("compare", "yolov8n.yaml", "--data", data, *methods, "--out", out)
    assert done.code == 1
    assert done.err == f"error: 7.png: cannot be decoded; `seqprune compare --resume {out}` goes on from here\n"
    measured = ends_at(None)
    assert run("compare", "--resume", out).code == 0
    assert len(measured) == 2


@pytest.mark.parametrize("command", ["compare", "sensitivity"])
def test_nothing_is_left_of_what_is_refused(run: Any, data: Path, tmp_path: Path, command: str) -> None:
    out = tmp_path / "a" / "b" if command == "compare" else tmp_path / "b.json"
    wrong = ("--methods", "best") if command == "compare" else ("--layers", "model.99.conv")
    done = run(command, "yolov8n.yaml", "--data", data, *wrong, "--out", out)
    assert done.code == 2
    assert wrong[1] in done.err
    assert not list(tmp_path.iterdir())
    done = run(command, "yolov8n.yaml", "--out", out)
    assert done.code == 2
    assert "--data is missing" in done.err
    assert run(command, "yolov8n.yaml", "--resume", tmp_path).code == 2


def test_a_run_that_was_begun_before_there_were_weights_goes_on(tmp_path: Path) -> None:
    older = {name: None for name in MEASURED if name not in OPENED} | {"model": "m.pt"}
    (tmp_path / RUN).write_text(json.dumps(older))
    assert asked_of(tmp_path, MEASURED, "compare") == older | dict.fromkeys(OPENED)
    (tmp_path / RUN).write_text(json.dumps({"model": "m.pt"}))
    with pytest.raises(InputError, match="is none that `seqprune compare` wrote"):
        asked_of(tmp_path, MEASURED, "compare")


def test_a_finished_run_is_said_to_be_finished(run: Any, tmp_path: Path) -> None:
    """Its run.json was said to be missing."""
    (tmp_path / "compare.json").write_text("{}")
    done = run("compare", "--resume", tmp_path)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "this run is finished, nothing is left to resume; see compare.json" in " ".join(done.err.split())
