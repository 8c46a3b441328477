"""``seqprune inspect``, and what every command shares."""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import Any

import pytest
import ultralytics

BARRIERS = 4 if ultralytics.__version__.startswith("8.3.") else 5
"""Releases since 8.4 return the maps that the head reads."""


def test_layers_front_to_back_with_what_ties_and_pins_them(run: Any) -> None:
    code, out, err = run("inspect", "yolov8n.yaml")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == f"yolov8n.yaml: 64 layers front to back, 57 of them prunable; {BARRIERS} barriers"
    rows = {line.split()[0]: line for line in lines if line.startswith("model.")}
    assert len(rows) == 64
    assert list(rows)[:2] == ["model.0.conv", "model.1.conv"]
    assert rows["model.5.conv"].split() == ["model.5.conv", "128", "128"]
    coupled = rows["model.4.cv1.conv"]
    assert "with model.4.m.0.cv2.conv, model.4.m.1.cv2.conv; equal halves: model.4" in coupled
    assert rows["model.22.dfl.conv"].split()[1:3] == ["1", "0"]
    assert "pinned: " in rows["model.22.dfl.conv"]
    barriers = lines[lines.index("barriers, through which channels are not followed") + 1 :]
    assert len(barriers) == BARRIERS
    assert all("model.22" in barrier for barrier in barriers)


def test_the_same_as_json(run: Any) -> None:
    code, out, _ = run("inspect", "yolov8n.yaml", "--json")
    assert code == 0
    found = json.loads(out)
    assert set(found) == {"model", "layers", "blocks", "barriers", "notes"}
    assert found["blocks"][:3] == ["model.2.m.0", "model.4.m.0", "model.4.m.1"]
    by_name = {layer["name"]: layer for layer in found["layers"]}
    assert by_name["model.2.cv1.conv"]["coupled"] == ["model.2.m.0.cv2.conv"]
    assert by_name["model.2.cv1.conv"]["constraints"]
    assert by_name["model.22.dfl.conv"]["free"] == 0
    assert by_name["model.22.dfl.conv"]["reason"]
    assert [set(barrier) for barrier in found["barriers"]] == [{"op", "module", "shape", "reason"}] * BARRIERS


def test_the_version(run: Any) -> None:
    assert run("--version") == (0, f"seqprune {version('seqprune')}\n", "")


@pytest.mark.parametrize("command", ["prune", "inspect", "demo", "reproduce"])
def test_help(run: Any, command: str) -> None:
    code, out, _ = run(command, "--help")
    assert code == 0
    assert "Usage: seqprune" in out


def test_reproduce_finds_everything_as_expected(run: Any) -> None:
    code, out, err = run("reproduce", "--no-colour")
    assert (code, err) == (0, "")
    assert "expected input[1, 256, 22, 32] to have 118 channels, but got 256 channels instead" in out
    assert "NOT" not in out


def test_reproduce_fails_when_something_is_not_as_expected(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import seqprune.measure.reproduce
    from seqprune.measure.reproduce import Finding

    def findings(on_finding: Any) -> list[Finding]:
        on_finding(Finding("run", "an error", "no error"))
        return [Finding("run", "an error", "no error")]

    monkeypatch.setattr(seqprune.measure.reproduce, "reproduce", findings)
    code, out, err = run("reproduce")
    assert code == 1
    assert "NOT as expected: an error" in out
    assert err == "error: 1 of the findings were not as expected: see above\n"
