"""The matrix: rows are kept, tables say what was seen, and a failure of ours is an exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from seqprune.testing import matrix as made
from seqprune.testing.contracts import CONTRACTS, Result
from seqprune.testing.tables import Row, between, by_contract, by_network, cell_text, markdown, page, reason_lines
from seqprune.yolo.files.zoo import smallest_detectors


def row(pruner: str, subject: str, **states: str) -> Row:
    results = {name: Result(name, states.get(name, "holds")) for name in CONTRACTS}  # type: ignore[arg-type]
    return Row(pruner, subject, results)


ROWS = [
    row("ours", "a"),
    row("ours", "b", fusing="not applicable", plain="not applicable"),
    row("theirs", "a", runs="fails", values="blocked"),
    row("theirs", "b", returns="crashed"),
]


def test_cells_say_how_many_hold_or_which_do_not() -> None:
    assert [cell_text(each) for each in (*ROWS, None)] == ["✓ 14", "✓ 12", "✗ runs", "✗ returns", ""]
    assert by_network(ROWS, ["ours", "theirs"]) == [
        ["network", "ours", "theirs"],
        ["a", "✓ 14", "✗ runs"],
        ["b", "✓ 12", "✗ returns"],
    ]


def test_contracts_are_counted_where_they_were_asked() -> None:
    lines = {line[0].split("**")[1]: line[1:] for line in by_contract(ROWS, ["ours", "theirs"])[1:]}
    assert lines["fusing"] == ["1 of 1", "2 of 2"]
    assert lines["values"] == ["2 of 2", "1 of 1 (1 blocked)"]
    assert lines["returns"] == ["2 of 2", "1 of 2"]


def test_reasons_of_a_kind_are_one_line() -> None:
    rows = [
        Row("theirs", name, {"runs": Result("runs", "fails", f"expected {n} channels, but got {2 * n}")})
        for name, n in (("a", 3), ("b", 40), ("c", 5), ("d", 6))
    ]
    lines = reason_lines(rows, ["theirs"])[1:]
    assert lines == [["theirs", "runs", "expected 3 channels, but got 6", "a, b, c and 1 more"]]


def test_a_table_is_put_between_its_marks() -> None:
    text = between("x\n<!-- m -->\nold\n<!-- end of m -->\ny", "m", "new\n")
    assert text == "x\n<!-- m -->\nnew\n<!-- end of m -->\ny"
    with pytest.raises(ValueError, match="no <!-- m -->"):
        between("x", "m", "new")


def test_the_page_escapes_what_it_shows() -> None:
    text = page("t", "a & b", {"h": [["<script>"], ["✗ runs"]]})
    assert "<script>" not in text
    assert '<td class="bad">✗ runs</td>' in text
    assert "<b>runs</b>: <code>a&lt;b</code>" in page("t", "", {"h": [["x"], ["**runs**: ``a<b``"]]})
    assert markdown([["a|b"]]).startswith("| a¦b |")


def test_lists_of_networks() -> None:
    detectors = smallest_detectors()
    assert {"yolov8n", "yolo11n", "yolov10n", "yolov3-tiny"} <= {*detectors}
    assert len(detectors) >= 10
    assert made.networks("detect,timm,x") == [*detectors, *(f"timm:{name}" for name in made.TIMM), "x"]
    assert len(set(made.TIMM)) == 30


def test_a_run_goes_on_from_its_rows_and_other_limits_are_another_run(tmp_path: Path) -> None:
    page_ = tmp_path / "page.md"
    page_.write_text("# Page\n<!-- matrix -->\n<!-- end of matrix -->\n")
    arguments = ["--models=planted:tiny", "--pruners=seqprune,naive", f"--out={tmp_path}", f"--write={page_}"]
    assert made.main(arguments) == 0
    assert "| planted:tiny | ✓ 12 | ✗ channels, batchnorm, runs |" in page_.read_text()
    assert "python -m seqprune.testing.matrix --models=planted:tiny" in page_.read_text()
    (kept,) = (tmp_path / "rows" / "naive").glob("*.json")
    content = json.loads(kept.read_text())
    content["results"][0] |= {"state": "fails", "reason": "planted in the file"}
    kept.write_text(json.dumps(content))
    assert made.main(arguments) == 1  # read and not asked again; `returns` is not known to fail
    assert "planted in the file" in (tmp_path / "matrix.html").read_text()
    assert made.main([*arguments, "--seconds=50"]) == 0


def test_a_wrong_name_is_said_before_anything_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        made.main(["--pruners=nobody", f"--out={tmp_path}"])
    assert "there is no pruner 'nobody'" in capsys.readouterr().err


def test_time_that_is_up_leaves_rows_for_the_next_run(tmp_path: Path) -> None:
    assert made.main(["--models=planted:tiny", "--pruners=naive", f"--out={tmp_path}", "--minutes=0"]) == 1
    assert not list(tmp_path.rglob("rows/*/*.json"))
    assert "1 rows are left" in (tmp_path / "matrix.md").read_text()
    assert made.main(["--models=planted:tiny", "--pruners=naive", f"--out={tmp_path}"]) == 0
    assert made.main(["--models=planted:tiny", "--pruners=naive", f"--out={tmp_path}", "--minutes=0"]) == 0  # kept
