"""A checkpoint is read without running what is in it."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from ultralytics.nn.tasks import DetectionModel, RTDETRDetectionModel, yaml_model_load
from ultralytics.utils import IterableSimpleNamespace

from seqprune.errors import ModelError, UntrustedError
from seqprune.yolo.files.load import load
from seqprune.yolo.files.save import save_pt
from seqprune.yolo.files.unpickle import RestrictedUnpickler, read

NAMES = {0: "green", 1: "red"}
DEMO = Path(__file__).parents[2] / "seqprune" / "demo" / "digits.pt"


class Calls:
    """Pickles as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def evil_yaml(folder: str) -> dict[str, Any]:
    """A model description whose activation Ultralytics evaluates when a network is built from it."""
    activation = f"[__import__('os').mkdir({folder!r}), torch.nn.SiLU()][1]"
    return {**deepcopy(yaml_model_load("yolov8n.yaml")), "activation": activation}


def lines(*opcodes: str) -> bytes:
    return "\n".join(opcodes).encode()


# By what is named in the refusal: a pickle that makes a folder where it is not refused.
ATTACKS: dict[str, Callable[[str], bytes]] = {
    "posix.system": lambda to: lines("cposix", "system", f"(S'mkdir {to}'", "tR."),
    "posix.mkdir": lambda to: pickle.dumps({"model": [Calls(os.mkdir, to)]}, 4),
    "builtins.eval": lambda to: lines("c__builtin__", "eval", f"(S\"__import__('os').mkdir('{to}')\"", "tR."),
    "functools.partial": lambda to: lines("cfunctools", "partial", "(cposix", "mkdir", f"S'{to}'", "tR)R."),
    "an instruction": lambda to: lines(f"(S'{to}'", "iposix", "mkdir", "."),
    "a call of ultralytics.nn.tasks.DetectionModel": lambda to: pickle.dumps(Calls(DetectionModel, evil_yaml(to)), 2),
}
LINEAR = ("ctorch.nn.modules.linear", "Linear")
# The same, of what would not make a folder by itself but is a step on the way.
STEPS = {
    "builtins.getattr(torch.nn.modules.linear.Linear, '__init__')": lines(
        "cbuiltins", "getattr", "(" + LINEAR[0], LINEAR[1], "S'__init__'", "tR."
    ),
    "builtins.getattr(OrderedDict, 'update')": lines(
        "cbuiltins", "getattr", "(ccollections", "OrderedDict", ")RS'update'", "tR."
    ),
    "a state for Token": lines(*LINEAR, "(dS'forward'", "I1", "sb."),
    "a new torch.nn.modules.linear.Linear from arguments": lines(*LINEAR, "K\x01K\x01") + b"\x86\x81.",
    "a tuple as the state of Linear": lines(*LINEAR, ")") + b"\x81N}\x86b.",
    "torch.load": lines("ctorch", "load", "."),
    "torch.hub.load": lines("ctorch.hub", "load", "."),
    "numpy.load": lines("cnumpy", "load", "."),
    "numpy.dtype('O')": lines("cnumpy", "dtype", "(S'O'", "tR."),
    "numpy.dtype('S1,O')": lines("cnumpy", "dtype", "(S'S1,O'", "tR."),
    "numpy._core.multiarray._reconstruct": pickle.dumps(np.array([0], dtype=object), 2),
    "torch.fx.graph_module.reduce_graph_module": lines("ctorch.fx.graph_module", "reduce_graph_module", "."),
    # a layer too, but one that compiles the code it is given when it is switched to inference
    "torchvision.models.feature_extraction.DualGraphModule": lines(
        "ctorchvision.models.feature_extraction", "DualGraphModule", "."
    ),
    "operator.attrgetter": lines("coperator", "attrgetter", "(S'system'", "tR."),
    "importlib.import_module": lines("cimportlib", "import_module", "(S'os'", "tR."),
    "ultralytics.nn.tasks.torch_safe_load": lines("cultralytics.nn.tasks", "torch_safe_load", "."),
    "ultralytics.nn.tasks.YAML.save": b"\x80\x04\x8c\x14ultralytics.nn.tasks\x8c\x09YAML.save\x93.",
    "seqprune.yolo.files.load.load": lines("cseqprune.yolo.files.load", "load", "."),
}


def archive(pickled: bytes, folder: Path) -> Path:
    """A checkpoint that is nothing but this pickle."""
    path = folder / "m.pt"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("m/data.pkl", pickled)
        file.writestr("m/version", "3\n")
    return path


@pytest.mark.skipif(os.name == "nt", reason="the attacks are written for POSIX")
@pytest.mark.parametrize("named", ATTACKS)
def test_what_runs_code_is_refused_by_name_and_does_not_run(named: str, tmp_path: Path) -> None:
    sentinel = tmp_path / "it-ran"
    path = archive(ATTACKS[named](str(sentinel)), tmp_path)
    with pytest.raises(UntrustedError, match=re.escape(named)) as caught:
        load(path)
    assert "--trust" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not sentinel.exists()
    with contextlib.suppress(ValueError, TypeError):  # the attack is a real one: it has done its work before it ends
        torch.load(path, weights_only=False)
    assert sentinel.exists()


@pytest.mark.parametrize("named", STEPS)
def test_steps_on_the_way_are_refused_too(named: str, tmp_path: Path) -> None:
    with pytest.raises(UntrustedError, match=re.escape(named)):
        read(archive(STEPS[named], tmp_path))


def test_the_format_of_old_is_read_the_same_way(tmp_path: Path) -> None:
    """Before torch 1.6 a checkpoint was several pickles in a row and no archive."""
    path = tmp_path / "old.pt"
    torch.save({"model": Calls(os.mkdir, str(tmp_path / "ran"))}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(UntrustedError, match=r"\.mkdir"):
        load(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("length", [3, 40, 300, 900])
def test_a_pickle_that_ends_early_is_a_damaged_file(length: int, tiny: nn.Module, tmp_path: Path) -> None:
    """``struct.error`` surfaced as a bug of ours."""
    with zipfile.ZipFile(save_pt(tiny, tmp_path / "m.pt", names=NAMES)) as whole:
        pickled = next(whole.read(name) for name in whole.namelist() if name.endswith("/data.pkl"))
    cut = {length, *(at + 2 for at in range(length, length + 200) if pickled[at : at + 1] in (b"X", b"J"))}
    for end in cut:
        with pytest.raises(ModelError, match=r"cannot be unpickled|dictionary without a model"):
            load(archive(pickled[:end], tmp_path))


def test_a_pickle_that_ends_within_a_name_is_damaged_and_not_untrusted(tiny: nn.Module, tmp_path: Path) -> None:
    """What is left of the name is no layer, and the user was asked whom to trust."""
    with zipfile.ZipFile(save_pt(tiny, tmp_path / "m.pt", names=NAMES)) as whole:
        pickled = next(whole.read(name) for name in whole.namelist() if name.endswith("/data.pkl"))
    name = b"cultralytics.nn.tasks\nDetectionModel\n"
    start = pickled.index(name)
    for end in (1, 5, len(name) - 16, len(name) - 15, len(name) - 4, len(name) - 1):
        with pytest.raises(ModelError, match="cannot be unpickled"):
            load(archive(pickled[: start + end], tmp_path))


def test_a_name_without_its_use_is_inert(tmp_path: Path) -> None:
    """A layer's class may be named, but what is in the data can be neither called nor filled."""
    found = read(archive(lines(*LINEAR, "."), tmp_path))
    assert not isinstance(found, type)
    assert not callable(found)


def test_one_planted_object_is_enough_and_trust_overrides(tiny: nn.Module, tmp_path: Path) -> None:
    path = save_pt(tiny, tmp_path / "m.pt", names=NAMES)
    torch.save({**torch.load(path, weights_only=False), "extra": Calls(os.mkdir, str(tmp_path / "ran"))}, path)
    with pytest.raises(UntrustedError, match=r"\.mkdir"):
        load(path)
    assert not (tmp_path / "ran").exists()
    assert load(path, trust=True).names == NAMES
    assert (tmp_path / "ran").exists()


def test_what_trainers_write_is_data(tmp_path: Path) -> None:
    held = {
        "fitness": np.float64(0.25),
        "counts": np.int64(3),
        "args": IterableSimpleNamespace(project=Path("runs"), lr0=0.01),
        "optimizer": torch.optim.AdamW([nn.Parameter(torch.ones(2))]).state_dict(),
        "layer": nn.Conv2d(2, 3, 1).half(),
        "kinds": (torch.float16, torch.device("cpu"), torch.Size([2]), {1}, b"bytes", slice(1, 2)),
        "state": OrderedDict(nn.BatchNorm2d(2).state_dict()),
        "channels_last": torch.zeros(1, 2, 3, 3).to(memory_format=torch.channels_last),
    }
    torch.save(held, tmp_path / "held.pt")
    found = read(tmp_path / "held.pt")
    assert found["fitness"] == 0.25
    assert found["args"].project == Path("runs")
    assert found["kinds"] == held["kinds"]
    assert found["channels_last"].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(found["layer"].weight, held["layer"].weight)
    assert found["state"].keys() == held["state"].keys()


def test_the_demo_weights_are_read_as_ultralytics_reads_them() -> None:
    ours, theirs = load(DEMO).model.state_dict(), load(DEMO, trust=True).model.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


@pytest.mark.parametrize("architecture", ["yolov3-tiny", "yolov9t", "yolov10n", "yolo12n", "yolo26n", "rtdetr-l"])
def test_networks_of_every_kind_are_read(architecture: str, tmp_path: Path) -> None:
    if architecture == "yolo26n" and not hasattr(DetectionModel, "end2end"):
        pytest.skip("this version of Ultralytics has no YOLO26")
    kind = RTDETRDetectionModel if "rtdetr" in architecture else DetectionModel
    network = kind(f"{architecture}.yaml", verbose=False)
    torch.save({"model": network}, tmp_path / "m.pt")
    found = read(tmp_path / "m.pt")["model"]
    assert type(found) is type(network)
    assert all(
        torch.equal(a, b) for a, b in zip(found.state_dict().values(), network.state_dict().values(), strict=True)
    )


@pytest.mark.real
def test_the_official_weights_are_read(real: Path) -> None:
    path = real / "weights" / "yolov8n.pt"
    ours, theirs = read(path)["model"].state_dict(), torch.load(path, weights_only=False)["model"].state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_dictionaries_as_the_oldest_pickles_write_them() -> None:
    written = b"(S'a'\nI1\nS'b'\nI2\nS'c'\n(lp0\nd."
    assert RestrictedUnpickler(io.BytesIO(written)).load() == pickle.loads(written) == {"a": 1, "b": 2, "c": []}  # noqa: S301


@pytest.mark.parametrize("program", [b"ctor", b"ctorch\n", b"ctorch\nSi"])
def test_a_file_that_ends_within_a_name_is_damaged(program: bytes) -> None:
    """What is left of the name would be refused, and ask for trust."""
    with pytest.raises(pickle.UnpicklingError, match="ends within a name"):
        RestrictedUnpickler(io.BytesIO(program)).load()
