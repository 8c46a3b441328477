"""What Ultralytics reads by itself while one of our functions runs goes through our readers, and is put back."""

from __future__ import annotations

import os
import struct
import sys
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from ultralytics import YOLO
from ultralytics.nn import tasks

import seqprune.yolo.train.job as training
from seqprune.errors import DataError, InputError, ModelError, UntrustedError
from seqprune.plain import UnreadableError, printable, text_of, yaml_of
from seqprune.plan import PrunePlan
from seqprune.yolo.data.dataset import resolve
from seqprune.yolo.files.contained import contained
from seqprune.yolo.files.description import check_description
from seqprune.yolo.files.guard import guarded
from seqprune.yolo.files.load import load
from seqprune.yolo.files.networks import build
from seqprune.yolo.files.save import save_pt
from seqprune.yolo.files.unpickle import read
from seqprune.yolo.task.validate import validate

NAMES = {0: "green", 1: "red"}
EAGER = {"imgsz": 64, "batch": 4, "device": "cpu", "workers": 0, "amp": False, "optimizer": "SGD"}
INNER = {"backbone": [[-1, 1, "Conv", [8, 3, 2]]], "head": [[[0], 1, "Detect", ["nc"]]], "nc": 2, "channels": 3}


class Calls:
    """Pickles as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.fixture
def plain_loads(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every call of torch's own ``load`` from here on."""
    seen: list[Any] = []
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda *args, **named: (seen.append(args), load(*args, **named))[1])
    return seen


def interrupted(tiny: nn.Module, data_yaml: Path, folder: Path) -> Path:
    """The ``last.pt`` of a run that was stopped in its second epoch."""

    def stop(done: int, total: int, losses: object) -> None:
        if done == 2:
            raise KeyboardInterrupt

    path = save_pt(tiny, folder / "m.pt", names=NAMES)
    with pytest.raises(KeyboardInterrupt):
        training.train(path, data_yaml, folder / "runs" / "it", epochs=2, arguments=EAGER, on_epoch=stop)
    return folder / "runs" / "it" / "weights" / "last.pt"


@pytest.mark.slow
def test_plain_torch_load_is_never_called(
    tiny: nn.Module, data_yaml: Path, tmp_path: Path, plain_loads: list[Any]
) -> None:
    """Ultralytics reads ``last.pt``, ``best.pt`` and more by itself in the midst of a training."""
    last = interrupted(tiny, data_yaml, tmp_path)
    result = training.resume(last, data_yaml, arguments={"device": "cpu"})
    validate(load(result.best).model, data_yaml, imgsz=64)
    assert not plain_loads


@pytest.mark.slow
def test_what_lies_beside_a_checkpoint_is_read_as_data(tiny: nn.Module, data_yaml: Path, tmp_path: Path) -> None:
    """``best.pt`` beside a harmless ``last.pt`` ran at the end of a resumed training."""
    last, ran = interrupted(tiny, data_yaml, tmp_path), tmp_path / "ran"
    torch.save({"model": Calls(os.mkdir, str(ran))}, last.with_name("best.pt"))
    with pytest.raises(UntrustedError, match=r"best\.pt: holds \w+\.mkdir"):
        training.resume(last, data_yaml, arguments={"device": "cpu"})
    assert not ran.exists()


@pytest.mark.slow
def test_a_resumed_run_follows_no_path_of_its_checkpoint(tiny: nn.Module, data_yaml: Path, tmp_path: Path) -> None:
    """``save_dir`` overwrote a folder of the file's choice, ``data`` ran its download script."""
    last, victim, ran = interrupted(tiny, data_yaml, tmp_path), tmp_path / "victim", tmp_path / "ran"
    victim.mkdir()
    found = torch.load(last, weights_only=False)
    script = tmp_path / "script.yaml"
    script.write_text(f"train: x\nval: y\nnames: [a, b]\ndownload: |\n  import os; os.mkdir({str(ran)!r})\n")
    paths = {"save_dir": str(victim), "project": str(tmp_path), "name": "victim", "data": str(script), "model": "x.pt"}
    found["train_args"] |= paths | {"pretrained": str(script), "augmentations": [{"a": 1}], "compile": True}
    torch.save(found, last)
    with pytest.raises(InputError, match=r"script\.yaml\), and no path that a checkpoint names is followed"):
        training.resume(last, None, arguments={"device": "cpu"})
    with pytest.raises(DataError, match=r"script\.yaml: the data set cannot be used"):
        training.resume(last, script, arguments={"device": "cpu"})
    assert training.resume(last, data_yaml, arguments={"device": "cpu"}).folder == last.parent.parent
    assert not list(victim.iterdir())
    assert not ran.exists()
    moved = last.rename(tmp_path / "last.pt")
    with pytest.raises(InputError, match=r"lies in no run's weights|no run to resume"):
        training.resume(moved, data_yaml)


def test_a_script_for_a_split_that_is_not_looked_at_is_not_run_either(
    tiny: nn.Module, data_yaml: Path, tmp_path: Path
) -> None:
    ran = tmp_path / "ran"
    with data_yaml.open("a") as file:
        file.write(f"\ntest: nowhere\ndownload: |\n  import os; os.mkdir({str(ran)!r})\n")
    tiny.names = NAMES
    with pytest.raises((DataError, FileNotFoundError)):
        validate(tiny, data_yaml, split="test", imgsz=64)
    assert "download" not in resolve(data_yaml)
    assert not ran.exists()


def test_everything_is_put_back() -> None:
    from ultralytics.data import utils

    watched = [
        (torch, "load"),
        (torch.jit, "load"),
        (tasks, "torch_safe_load"),
        (tasks, "parse_model"),
        (tasks, "YAML"),
    ]
    watched += [(utils, "check_det_dataset"), (sys.modules["ultralytics.engine.trainer"], "check_det_dataset")]
    watched += [(utils, "load_dataset_cache_file")]
    newer = ("check_file_speeds", "convert_ndjson_to_yolo_if_needed")
    watched += [(utils, name) for name in newer if hasattr(utils, name)]
    before = [getattr(owner, name) for owner, name in watched]
    with contained(), guarded(trust=True), guarded():
        assert all(getattr(owner, name) is not old for (owner, name), old in zip(watched, before, strict=True))
    assert [getattr(owner, name) for owner, name in watched] == before
    assert not {"eval", "exec"} & {*vars(tasks), *vars(utils)}


def test_trust_holds_within_and_not_beyond(tmp_path: Path) -> None:
    torch.save({"x": Calls(os.path.join, "a", "b")}, tmp_path / "x.pt")
    with guarded(trust=True), guarded():
        assert torch.load(tmp_path / "x.pt", weights_only=False) == {"x": "a/b"}
    with guarded(), pytest.raises(UntrustedError, match=r"posixpath\.join"):
        torch.load(tmp_path / "x.pt", weights_only=False)


def test_a_network_in_a_network_is_refused_wherever_it_is_built(tmp_path: Path) -> None:
    """Its constructor evaluates text; so does that of whatever else takes a description."""
    ran = tmp_path / "ran"
    evil = {**INNER, "activation": f"[__import__('os').mkdir({str(ran)!r}), torch.nn.SiLU()][1]"}
    outer = {**INNER, "backbone": [[-1, 1, "DetectionModel", [evil]]]}
    for description in (outer, evil, {**INNER, "head": [[-1, 1, "TorchVision", [8, evil["activation"]]]]}):
        for make in (lambda d: build("detect", d, 2), check_description):
            with pytest.raises(UntrustedError):
                make(description)
        with guarded(), pytest.raises(UntrustedError):
            tasks.DetectionModel(description, verbose=False)
    assert not ran.exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"backbone": [[-1, 10**9, "Conv", [8, 3]]]}, "1000000000 times"),
        ({"backbone": [[-1, 1, "Conv", [10**9, 3]]]}, "neither a number nor a word"),
        ({"backbone": [[-1, 1, "Conv", ["__import__('os')"]]]}, "no word of a layer's"),
        ({"backbone": [[10**9, 1, "Conv", [8]]]}, "no layers' numbers"),
        ({"backbone": [[-1, 1, "Conv\x1b[2J", [8]]]}, "is no layer"),
        ({"backbone": [[-1, 1, "nn.Sequential", []]]}, "is no layer"),
        ({"nc": 10**9}, "nc: 1000000000"),
        ({"channels": float("inf")}, "holds the number inf"),
        ({"depth_multiple": 10**6}, "depth_multiple"),
        ({"scales": {"n": [1, 1, "x"]}}, "scales"),
        ({"text_model": "../evil.ts"}, "text_model"),
        ({"activation": "nn.Sequential()"}, "is code"),
    ],
)
def test_descriptions_hold_layers_numbers_and_known_words(change: dict[str, Any], said: str) -> None:
    with pytest.raises(UntrustedError, match=said) as caught:
        check_description(INNER | change)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "layer",
    [[-1, 1, "Conv", [65536, 31]], [-1, 1, "RepNCSPELAN4", [16, 16, 8, 60000]], [-1, 1, "nn.Upsample", [65536]]],
)
def test_numbers_that_multiply_are_stopped_before_they_fill_the_memory(layer: list[Any]) -> None:
    with pytest.raises(ModelError, match="more than any that is known"):
        build("detect", {**INNER, "backbone": [[-1, 1, "Conv", [64, 3]], layer, [-1, 1, "Conv", [8, 3]]]}, 2)


def archive(path: Path, *names: str, how: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", how) as file:
        for name in ("m/data.pkl", "m/version", *names):
            file.writestr(name, b"N." if name.endswith("pkl") else b"3\n")
    return path


def test_an_archive_has_one_list_of_contents(tmp_path: Path) -> None:
    """Python's ``zipfile`` saw a checkpoint where torch saw a program, and ran it."""
    path = archive(tmp_path / "m.pt", "m/constants.pkl")
    with pytest.raises(UntrustedError, match="TorchScript program"):
        read(path)
    raw = path.read_bytes()
    end = raw.rfind(b"PK\5\6")
    count, size, offset = struct.unpack("<HII", raw[end + 10 : end + 20])
    decoy = raw[offset : offset + size].replace(b"constants", b"constantz")
    tail = b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, count, count, size, offset, 0)
    path.write_bytes(raw[: offset + size] + decoy + tail)
    with pytest.raises(UntrustedError, match="lists of contents disagree"):
        read(path)
    path.write_bytes(raw[:-2] + struct.pack("<H", 4) + b"note")
    with pytest.raises(ModelError, match="archive is damaged"):
        read(path)
    with pytest.raises(ModelError, match="compressed"):
        read(archive(path, "m/data/0", how=zipfile.ZIP_DEFLATED))


def test_a_tensor_has_no_more_than_its_file(tmp_path: Path) -> None:
    """Sizes came from the pickle: a file of a kilobyte asked for terabytes, or read beyond its record."""
    for tensor in (torch.zeros(1).expand(10**9), torch.zeros(1).expand(2, 2)):
        torch.save({"x": tensor}, tmp_path / "x.pt")
        with pytest.raises(ModelError, match="repeats its values"):
            read(tmp_path / "x.pt")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
@pytest.mark.parametrize(
    ("name", "reader"),
    [
        ("m.pt", load), ("m.pt", read), ("m.yaml", load), ("m.safetensors", load), ("d.yaml", resolve),
        ("plan.json", PrunePlan.load), ("t.txt", text_of),
    ],
)  # fmt: skip
def test_what_has_no_end_is_refused_at_once(name: str, reader: Callable[[Path], object], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    failed: list[BaseException] = []

    def work() -> None:
        for path in (tmp_path / name, link):
            try:
                reader(path)
            except InputError as error:
                failed.append(error)

    link = tmp_path / f"link{Path(name).suffix}"
    link.symlink_to("/dev/zero")
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(30)
    assert ["pipe" in str(failed[0]), "device" in str(failed[1])] == [True, True]


def test_pipes_among_the_images_are_left_out(data_yaml: Path) -> None:
    from seqprune.yolo.data.images import DetectionImages

    images = data_yaml.parent / "images" / "train"
    os.mkfifo(images / "pipe.jpg")
    first = sorted(images.glob("*.jpg"))[0]
    label = data_yaml.parent / "labels" / "train" / f"{first.stem}.txt"
    label.unlink()
    os.mkfifo(label)
    found = DetectionImages(data_yaml, imgsz=64)
    assert set(found.unreadable) == {"pipe.jpg", first.name}


@pytest.mark.parametrize(
    "text", ["a: &a [1]\nb: *a", "[" * 1000, "x: " + "1:" * 9000 + "1", "x: .inf", "x: !!int ''", "\0"]
)
def test_yaml_is_plain(text: str) -> None:
    with pytest.raises(UnreadableError):
        yaml_of(text)


def test_text_from_files_is_shown_without_control_characters(tiny: nn.Module, tmp_path: Path) -> None:
    assert printable("a\x1b[2J\x9b\u202eb\nc") == "a\ufffd[2J\ufffd\ufffdb c"
    path = save_pt(tiny, tmp_path / "m.pt", names={0: "\x1b]0;title\x07", 1: "<b>"})
    assert load(path).names == {0: "\ufffd]0;title\ufffd", 1: "<b>"}


def test_a_fused_network_is_refused_as_one(tmp_path: Path) -> None:
    """It asked whether the file was to be trusted, for a method that ``fuse()`` leaves on a convolution."""
    yolo = YOLO("yolov8n.yaml")
    yolo.fuse()
    yolo.save(tmp_path / "fused.pt")
    with pytest.raises(ModelError, match="fused away"):
        load(tmp_path / "fused.pt")


def test_what_is_small_in_the_file_and_endless_in_memory_is_refused(tiny: nn.Module, tmp_path: Path) -> None:
    """Layers that hold each other twice are a thousand million after thirty; a pickle of single bytes takes minutes."""
    inner = nn.Module()
    for _ in range(30):
        outer = nn.Module()
        outer.one = outer.other = inner
        inner = outer
    tiny.extra = inner
    torch.save({"model": tiny}, tmp_path / "m.pt")
    with pytest.raises(ModelError, match="more than 20000 layers"):
        load(tmp_path / "m.pt")
    with zipfile.ZipFile(tmp_path / "m.pt", "w") as file:
        file.writestr("m/data.pkl", b"\x80\x02" + b"N0" * 1_100_000 + b"N.")
        file.writestr("m/version", "3\n")
    with pytest.raises(ModelError, match="2,000,000 steps"):
        load(tmp_path / "m.pt")
    with pytest.raises(ModelError, match="nested without end"):
        read(pickled(tmp_path / "m.pt", b"\x80\x02" + b"]" * 5000 + b"a" * 4999 + b"."))


def pickled(path: Path, program: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("m/data.pkl", program)
        file.writestr("m/version", "3\n")
    return path


def test_a_data_set_is_not_the_whole_machine(tmp_path: Path) -> None:
    path = tmp_path / "d.yaml"
    for folder in ("/", "/proc"):
        path.write_text(f"train: {folder}\nval: x\nnames: [a]\n")
        with pytest.raises(DataError, match="the whole machine"):
            resolve(path)
