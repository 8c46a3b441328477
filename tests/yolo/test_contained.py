"""What Ultralytics is given while one of our functions runs, piece by piece: no network is built here."""

from __future__ import annotations

import io
import logging
import os
import sys
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn
from ultralytics.data import utils as data_utils
from ultralytics.engine import validator
from ultralytics.models.yolo.classify import val as classes
from ultralytics.models.yolo.detect import val as boxes
from ultralytics.nn import tasks
from ultralytics.utils import LOGGER, checks

from seqprune.errors import ModelError, PlanError, UntrustedError
from seqprune.graph.factor import Factor
from seqprune.plain import UnreadableError
from seqprune.yolo.files.contained import contained, one_line, replaced
from seqprune.yolo.files.guard import guarded
from seqprune.yolo.files.load import LARGEST, LoadedDetector, check_there, load
from seqprune.yolo.files.tensors import factor_of, load_pair, without

RANKS = [(module, name) for module in (validator, boxes, classes) for name in ("RANK", "LOCAL_RANK")]


def test_ultralytics_is_quiet_alone_and_installs_nothing_and_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in RANKS:
        monkeypatch.setattr(module, name, 3, raising=False)
    monkeypatch.setattr(checks, "AUTOINSTALL", True)
    font = data_utils.check_font
    monkeypatch.setattr(LOGGER, "level", logging.WARNING)
    plain = torch.load
    with contained():
        assert torch.load is not plain  # what is read is read as data
        assert {getattr(module, name) for module, name in RANKS} == {-1}
        assert checks.AUTOINSTALL is False
        assert data_utils.check_font is not font
        assert data_utils.check_font() is None
        assert LOGGER.level == logging.CRITICAL
    with suppress(KeyError), contained():
        raise KeyError
    assert {getattr(module, name) for module, name in RANKS} == {3}
    assert checks.AUTOINSTALL is True
    assert (LOGGER.level, data_utils.check_font) == (logging.WARNING, font)


def test_what_is_not_there_is_not_replaced() -> None:
    owner = SimpleNamespace(there=1)
    with replaced(owner, "there", 2), replaced(owner, "other", 2):
        assert vars(owner) == {"there": 2}
    assert vars(owner) == {"there": 1}


def test_a_line_holds_three_hundred_characters_and_no_colours() -> None:
    assert one_line("x" * 300) == "x" * 300
    assert (one_line(KeyError()), one_line(ValueError("no"))) == ("KeyError", "no")
    assert one_line("x" * 301) == "x" * 299 + "…"
    assert one_line("\x1b[1;31ma\x1b[mb\x1b[0m  é\n\t❌ ö") == "ab é ö"


def test_programs_caches_scripts_and_weights_are_neither_read_nor_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torchvision.models, "get_model", lambda name, **named: (name, named))
    torch.jit.script(nn.ReLU()).save(tmp_path / "m.pt", _extra_files={"note": "seen"})
    with guarded():
        with pytest.raises(UntrustedError, match="TorchScript program"):
            torch.jit.load(tmp_path / "m.pt")
        with pytest.raises(FileNotFoundError, match="are not read"):
            data_utils.load_dataset_cache_file(tmp_path / "x.cache")
        with pytest.raises(UntrustedError, match="is not run"):
            data_utils.exec("")
        assert torchvision.models.get_model("resnet18", weights="DEFAULT") == ("resnet18", {"weights": None})
    with guarded(trust=True):
        given: dict[str, str] = {"note": ""}
        assert torch.jit.load(tmp_path / "m.pt", _extra_files=given)(torch.tensor(-1.0)) == 0
        assert given == {"note": b"seen"}


def test_what_is_looked_up_in_a_module_is_ours_and_then_what_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_utils, "exec", len, raising=False)
    monkeypatch.setitem(sys.modules, "ultralytics.blocked", None)  # type: ignore[arg-type]
    with guarded():
        assert isinstance(tasks.eval("nn.ReLU()"), nn.ReLU)
        with pytest.raises(UntrustedError):
            data_utils.exec("x")
        if hasattr(data_utils, "check_file_speeds"):
            assert data_utils.check_file_speeds([tmp_path / "absent.jpg"], threshold_ms=0) is None
        if hasattr(data_utils, "convert_ndjson_to_yolo_if_needed"):
            assert data_utils.convert_ndjson_to_yolo_if_needed("absent.ndjson") == "absent.ndjson"
    assert data_utils.exec is len
    assert "eval" not in vars(tasks)


class Joined:
    """Pickles as a call."""

    def __reduce__(self) -> Any:
        return os.path.join, ("a", "b")


def test_a_checkpoint_that_would_run_is_read_where_it_is_trusted_alone(tmp_path: Path) -> None:
    torch.save({"x": Joined()}, tmp_path / "m.pt")
    for trusted in (tmp_path / "m.pt", str(tmp_path / "m.pt")):
        with guarded(), pytest.raises(UntrustedError):
            tasks.torch_safe_load(trusted)
        with guarded(trust=True):
            assert tasks.torch_safe_load(trusted)[0] == {"x": "a/b"}


def test_what_is_asked_of_a_trusted_file_is_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    readers = ((torch, "load"), (torch.jit, "load"), (tasks, "torch_safe_load"))
    for owner, name in readers:
        monkeypatch.setattr(owner, name, lambda *args, **named: (args, named))
    with guarded(trust=True):
        for owner, name in readers:
            assert getattr(owner, name)("m.pt", 1, other=2) == (("m.pt", 1), {"other": 2})


def test_checkpoints_are_read_from_files_and_from_memory(tmp_path: Path) -> None:
    torch.save({"a": 1}, tmp_path / "a.pt")
    raw = (tmp_path / "a.pt").read_bytes()

    class Stream:
        def read(self) -> bytes:
            return raw

    with guarded():
        for source in (tmp_path / "a.pt", str(tmp_path / "a.pt"), io.BytesIO(raw), Stream()):
            assert torch.load(source) == {"a": 1}


def test_a_data_set_without_the_split_that_is_asked_for_is_none(data_yaml: Path) -> None:
    with guarded():
        assert data_utils.check_det_dataset(data_yaml)["names"] == {0: "green", 1: "red"}
        assert data_utils.check_det_dataset(data_yaml, split="val")["val"]
        with pytest.raises(FileNotFoundError, match="has no split 'test'"):
            data_utils.check_det_dataset(data_yaml, split="test")


def test_a_model_yaml_has_keys(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text("nc: 2\n")
    with guarded():
        assert tasks.YAML.load(path) == {"nc": 2}
        path.write_text("- nc\n")
        with pytest.raises(UnreadableError, match="holds no keys"):
            tasks.YAML.load(path)


@pytest.mark.parametrize("rank", [1, 1 << 20])
@pytest.mark.parametrize("first", ["column", "row"])
def test_a_factor_is_a_block_an_order_and_a_rank(first: Any, rank: int) -> None:
    assert factor_of(["model.0", first, rank]) == Factor("model.0", first, rank)


@pytest.mark.parametrize(
    "value",
    [
        ("a", "row", 0), ("a", "row", (1 << 20) + 1), ("a", "row", True), ("a", "row", 1.0),
        ("a", "both", 1), (1, "row", 1), ("a\n", "row", 1), ("a", "row"),
    ],
)  # fmt: skip
def test_what_is_no_factor_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"no factor|not enough"):
        factor_of(value)


def test_blocks_that_are_left_out_have_names_of_the_network() -> None:
    for blocks in ([1], ["a", None], [""]):
        with pytest.raises(ValueError, match="has no name"):
            without(nn.Sequential(nn.ReLU()), blocks)
    with pytest.raises(PlanError):
        without(nn.Sequential(nn.ReLU()), ["absent"])


@pytest.mark.parametrize("missing", ["m.safetensors", "m.json"])
def test_a_pair_is_two_files(missing: str, tmp_path: Path) -> None:
    for name in {"m.safetensors", "m.json"} - {missing}:
        (tmp_path / name).write_bytes(b"{}")
    with pytest.raises(ModelError, match=rf"{missing}: no such file; m\.safetensors and m\.json belong together"):
        load_pair(tmp_path / "m.safetensors")


@pytest.mark.parametrize("text", ["{}", "[]", '{"format": 0}', '{"format": 4}', '{"format": "1"}'])
def test_a_description_is_of_a_format_that_is_known(text: str, tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "m.safetensors")
    (tmp_path / "m.json").write_text(text)
    with pytest.raises(ModelError, match=r"m\.json: describes no network that this version knows"):
        load_pair(tmp_path / "m.safetensors")


@pytest.mark.parametrize(
    ("said", "size"), [(32, 32), (31, 640), (LARGEST, LARGEST), (LARGEST + 1, 640), ("64", 640), (None, 640)]
)
def test_a_size_is_believed_within_bounds(said: Any, size: int) -> None:
    found = LoadedDetector(nn.ReLU(), "detect", {}, 32, "m.pt", {"train_args": {"imgsz": said}})
    assert found.imgsz == size
    for held in (None, {}, {"train_args": [640]}):
        assert LoadedDetector(nn.ReLU(), "classify", {}, 32, "m.pt", held).imgsz == 224


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("absent.pt", "no such file; check"),
        ("absent.yml", "no such file, and no model YAML"),
        ("absent.onnx", "an exported ONNX model"),
        ("absent.txt", "weights end in .pt"),
    ],
)
def test_a_file_that_is_not_there_is_said_first(name: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=said):
        check_there(tmp_path / name)


def test_what_is_there_or_known_by_name_is_not_asked_after(tmp_path: Path) -> None:
    (tmp_path / "m.txt").write_text("")
    for model in (nn.ReLU(), tmp_path / "m.txt", "yolov8n.yaml", "yolov8n.pt"):
        check_there(model)


def test_a_folder_is_no_checkpoint_whatever_it_is_called(tmp_path: Path) -> None:
    (tmp_path / "m.PT").mkdir()
    with pytest.raises(ModelError, match="is a folder, not a checkpoint"):
        load(tmp_path / "m.PT")


def test_four_keys_of_a_dictionary_without_a_model_are_named(tmp_path: Path) -> None:
    longer = (("x" * 40, "y" * 41), f"{'x' * 40}, {'y' * 39}…")
    for keys, said in (("abcd", "a, b, c, d"), ("abcde", "a, b, c, d, …"), ((), "none"), longer):
        torch.save(dict.fromkeys(keys, 1), tmp_path / "m.pt")
        with pytest.raises(ModelError, match=rf"without a model \(keys: {said}\)"):
            load(tmp_path / "m.pt")
    torch.save({7: 1}, tmp_path / "m.pt")
    with pytest.raises(ModelError, match=r"without a model \(keys: int\)"):
        load(tmp_path / "m.pt", trust=True)
