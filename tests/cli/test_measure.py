"""``seqprune sensitivity`` and ``seqprune compare``, from the command line to the files."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

SMALL = ("--imgsz", "32", "--batch", "4")


def test_sensitivity_measures_one_layer_at_a_time(run, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    layers = "model.2.m.0.cv2.conv,model.1.conv,model.2.cv1.conv"
    done = run(
        *("sensitivity", "yolov8n.yaml", "--data", data, "--layers", layers, "--ratios", "0.5,0.25", *SMALL),
        *("--images", "1", "--out", out),
    )
    assert done.code == 0, done.err
    found = json.loads(out.read_text())
    points = found["points"]
    # The first half of a C2f goes with its second and the residual branches: one unit, by its first layer.
    assert [p["layer"] for p in points] == [*("model.1.conv", "model.1.conv", "model.2.cv1.conv", "model.2.cv1.conv")]
    assert [p["ratio"] for p in points] == [0.5, 0.25] * 2
    assert [(p["kept"], p["channels"]) for p in points[:2]] == [(16, 32), (8, 32)]
    assert points[2]["members"] == ["model.2.cv1.conv", "model.2.m.0.cv2.conv"]
    assert all(p["drop"] == pytest.approx(found["unpruned"] - p["accuracy"]) for p in points)
    assert points[1]["params"] < points[0]["params"] < 1
    page = out.with_suffix(".html").read_text()
    assert page.count("<circle") == len(points)
    assert not re.search(r"(src|href)=(?![\"']?(#|data:))|https?://", page)  # nothing is loaded
    assert "model.1.conv" in done.out
    again = run("sensitivity", "yolov8n.yaml", "--data", data, "--out", out)
    assert again.code == 2
    assert "give a new file" in again.err
    out.unlink()  # and the page is still there
    assert run("sensitivity", "yolov8n.yaml", "--data", data, "--out", out).err == again.err


def test_compare_brings_methods_to_equal_parameters(run, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "compared"
    done = run(
        *("compare", "yolov8n.yaml", "--data", data, "--target", "params=0.7", "--images", "4", *SMALL),
        *("--methods", "random,l1-global,taylor", "--out", out),
    )
    assert done.code == 0, done.err
    found = json.loads((out / "compare.json").read_text())
    first, *rest = found["rows"]
    assert (first["method"], first["share"]) == ("unpruned", 1)
    assert [row["method"] for row in rest] == ["random", "l1-global", "taylor"]
    assert all(row["share"] == pytest.approx(0.7, rel=0.02) for row in rest)
    assert all(row["gflops"] < first["gflops"] and row["latency_ms"] > 0 and not row["reason"] for row in rest)
    assert (out / "compare.md").read_text().count("\n") == 2 + len(found["rows"])
    page = (out / "compare.html").read_text()
    assert page.count("<path d=") >= 3 * len(rest)
    assert "nan" not in page
    for row in found["rows"]:
        name = row["method"] + (" at 0.7" if row["method"] != "unpruned" else "")
        accuracy = f"mAP50-95 {row['accuracy']['map50_95']:.4f}"
        known = f"{name}: {row['params']:,} parameters, {row['gflops']:.2f} GFLOPs, {accuracy}"
        assert known in done.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("compare", "yolov8n.yaml", "--data", "d.yaml", "--methods", "best"), "there is no method 'best'"),
        (("compare", "yolov8n.yaml", "--data", "d.yaml", "--target", "latency=0.5"), "equal parameters"),
        (
            ("compare", "yolov8n.yaml", "--data", "d.yaml", "--target", "params=many"),
            "give numbers with commas",
        ),
        (("compare", "yolov8n.yaml", "--data", "d.yaml", "--target", "params=2"), "shares of the parameters in (0, 1)"),
        (("sensitivity", "yolov8n.yaml", "--data", "d.yaml", "--ratios", "1.5"), "give shares that stay"),
        (("sensitivity", "yolov8n.yaml", "--data", "d.yaml", "--criterion", "best"), "there is no criterion 'best'"),
    ],
)
def test_bad_input_is_one_line(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments, said: str) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(*arguments)
    assert done.code == 2
    assert said in done.err
    assert done.err.count("\n") == 1
    assert not list(tmp_path.iterdir())
