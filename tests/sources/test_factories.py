"""Networks by the name of what builds them: nothing is downloaded, and nobody's code runs unasked."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from seqprune.errors import InputError, ModelError, UntrustedError
from seqprune.sources.factories import built, called, is_factory
from seqprune.sources.shown import Shown


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the folder that the command is called in, which leaves a mark when it is imported."""
    name = f"mine_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(
        "import pathlib, torch\npathlib.Path(__file__).with_name('ran').touch()\n"
        "def net(): return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 1))\n"
        "def wrong(): return 3\n"
        "def needs(what): return what\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, name, raising=False)
    return name


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: Any, **_options: Any) -> Any:
        raise AssertionError("something was to be downloaded")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.parametrize("name", ["timm:resnet18", "torchvision:resnet18", "a.b:c", "timm:vit_tiny.augreg_in21k"])
def test_what_builds_a_network_is_told_from_a_file(name: str) -> None:
    assert is_factory(name)


@pytest.mark.parametrize(
    "name", ["yolov8n.pt", "C:\\nets\\a.pt", "C:nets.pt", "/a:b/c.pt", "a b:c", "timm:", ":f", "a:b:c", 3, None]
)
def test_a_file_is_none(name: object) -> None:
    assert not is_factory(name)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5", "fcn_resnet50"])
def test_torchvision_builds_with_random_weights(name: str) -> None:
    """Segmentation networks fetched the weights of their backbone."""
    first, shown = built(f"torchvision:{name}", seed=1)
    again, _ = built(f"torchvision:{name}", seed=1)
    other, _ = built(f"torchvision:{name}", seed=2)
    weights = [next(model.parameters()) for model in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert not first.training
    assert shown.mean == (0.485, 0.456, 0.406)


@pytest.mark.usefixtures("offline")
def test_libraries_say_how_images_are_shown() -> None:
    timm = pytest.importorskip("timm")
    model, shown = built("timm:tf_efficientnet_lite0")
    assert type(model) is type(timm.create_model("tf_efficientnet_lite0"))
    assert (shown.imgsz, shown.crop, shown.mean, shown.std) == (224, 0.875, (0.5,) * 3, (0.5,) * 3)
    assert shown.resampling == "bicubic"
    _, inception = built("torchvision:inception_v3")
    assert inception == Shown(299, 299 / 342)


def test_an_unknown_network_is_one_line_with_those_that_are_near() -> None:
    with pytest.raises(InputError, match="torchvision has no network 'resnet19': did you mean resnet18"):
        built("torchvision:resnet19")
    pytest.importorskip("timm")
    with pytest.raises(InputError, match="timm has no network 'resnet19'"):
        built("timm:resnet19")


def test_timm_is_not_needed_until_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match=r"timm is missing: pip install 'seqprune\[timm\]'"):
        built("timm:resnet18")


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_what_a_library_needs_is_named(library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """timm was said to be missing where torchvision was."""
    (tmp_path / library).mkdir()
    (tmp_path / library / "__init__.py").write_text("import needed_by_it.inside\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(InputError, match=f"{library} does not work without needed_by_it .*: pip install needed_by_it"):
        built(f"{library}:resnet18")
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(InputError, match=f"{library} is missing: pip install"):
        built(f"{library}:resnet18")


def test_nobodys_code_runs_unasked(mine: str, tmp_path: Path) -> None:
    for ask in (built, lambda name: called(name, trust=False)):
        with pytest.raises(UntrustedError, match="its code would run: give --trust"):
            ask(f"{mine}:net")
    assert not (tmp_path / "ran").exists()
    assert mine not in sys.modules


def test_a_function_of_the_folder_builds_where_it_is_trusted(mine: str) -> None:
    before = list(sys.path)
    model, shown = built(f"{mine}:net", trust=True)
    assert model[0].out_channels == 8
    assert shown == Shown()
    assert sys.path == before


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("wrong", "returns a int: it has to return a torch.nn.Module"),
        ("needs", "name a function that takes nothing"),
        ("nothing", "has no attribute 'nothing'"),
    ],
)
def test_a_function_that_builds_none_is_one_line(mine: str, what: str, said: str) -> None:
    with pytest.raises((InputError, ModelError), match=said):
        built(f"{mine}:{what}", trust=True)
    with pytest.raises(InputError, match="No module named 'nowhere_at_all'"):
        built("nowhere_at_all:net", trust=True)
