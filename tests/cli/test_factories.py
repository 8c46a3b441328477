"""Networks by the name of what builds them, from the command line: all that ``prune`` does for a YOLO."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import seqprune

SOURCE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 24, 3, stride=2, padding=1)
        self.norm, self.head = nn.BatchNorm2d(24), nn.Linear(24, 3)

    def forward(self, x):
        return self.head(self.norm(self.two(self.one(x).relu())).relu().mean((2, 3)))

def net():
    torch.manual_seed(0)
    return Net()

def pair():
    return {"train": [(torch.rand(8, 3, 32, 32), torch.arange(8) % 3)] * 2, "val": [torch.rand(2, 3, 32, 32)]}
"""
SMALL = ("--imgsz", 32, "--batch", 4)
WHOLE = ("--preset", "accurate", "--target", "params=0.7", "--round-to", 2)


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"nets_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, name, raising=False)
    return f"{name}:net"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight training and two validation images of each of three colours."""
    root = tmp_path / "colours"
    for split, count in (("train", 8), ("val", 2)):
        for kind, name in enumerate(("blue", "green", "red")):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                colour = [30 + 9 * number] * 3
                colour[2 - kind] += 150
                Image.new("RGB", (48, 36), tuple(colour)).save(root / split / name / f"{number}.png")
    return root


def test_a_network_of_ones_own_is_pruned_from_a_folder(run: Any, net: str, folder: Path, tmp_path: Path) -> None:
    done = run("prune", net, "--data", folder, *SMALL, *WHOLE, "--protect", "one", "--trust")
    assert done.code == 0, done.err
    home = tmp_path / "runs" / "prune" / "net"
    assert "weights/pruned.safetensors, plan.json, report.json, report.html" in done.out
    assert "top-1 accuracy" in done.out
    report = json.loads((home / "report.json").read_text())
    assert (report["model"], report["data"]) == (net, str(folder))
    assert report["after"]["params"] < 0.75 * report["before"]["params"]
    assert 0 <= report["before"]["top1"] <= 1
    again = run(
        "prune", net, "--weights", home / "weights" / "pruned.safetensors", "--trust", "--preset", "fast", *SMALL
    )
    assert again.code == 0, again.err
    second = json.loads((tmp_path / "runs" / "prune" / "net-2" / "report.json").read_text())
    assert second["before"]["params"] == report["after"]["params"], "it goes on from the pruned widths"
    module = sys.modules[net.partition(":")[0]]
    assert seqprune.restore(module.Net(), home / "weights" / "pruned.safetensors").one.out_channels == 16, "protected"


def test_it_is_resumed_to_the_same_bits(
    run: Any, net: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("prune", net, "--data", folder, *SMALL, *WHOLE, "--mean", "0.5,0.5,0.5", "--trust")
    assert run(*asked, "--name", "whole").code == 0
    with monkeypatch.context() as patched:
        patched.setattr("seqprune.engine.engine.Engine.repair", lambda *_: (_ for _ in ()).throw(OSError("disk")))
        done = run(*asked, "--name", "ended")
        assert done.code == 1
    home = tmp_path / "runs" / "prune"
    assert "goes on from here" in done.err
    refused = run("prune", "--resume", home / "ended")
    assert (refused.code, "give --trust" in refused.err) == (2, True)
    assert run("prune", "--resume", home / "ended", "--trust").code == 0
    for name in ("plan.json", "weights/pruned.safetensors"):
        assert (home / "ended" / name).read_bytes() == (home / "whole" / name).read_bytes()


def test_torchvision_needs_no_trust_and_images_no_classes(run: Any, tmp_path: Path) -> None:
    """Classes are unused by the settings, so a folder of photos does."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(6):
        Image.new("RGB", (40, 40), (40 * number, 90, 20)).save(photos / f"photo{number}.jpg")
    torch.manual_seed(0)
    from torchvision import models

    save_file(models.shufflenet_v2_x0_5().state_dict(), tmp_path / "w.safetensors")
    done = run(
        *("prune", "torchvision:shufflenet_v2_x0_5", "--weights", tmp_path / "w.safetensors", "--data", photos),
        *("--preset", "fast", "--recover", "bn", "--target", "params=0.9", "--imgsz", 64, "--batch", 2),
        *("--project", tmp_path / "runs"),
    )
    assert done.code == 0, done.err
    assert "accuracy is not measured" in done.out + done.err
    assert (tmp_path / "runs" / "shufflenet_v2_x0_5" / "weights" / "pruned.safetensors").exists()
    assert json.loads((tmp_path / "runs" / "shufflenet_v2_x0_5" / "report.json").read_text())["before"]["top1"] is None


def test_methods_layers_and_channels_are_looked_at(run: Any, net: str, folder: Path, tmp_path: Path) -> None:
    how = ("--data", folder, *SMALL, "--trust")
    done = run("compare", net, *how, "--methods", "accurate,l1-global", "--target", "flops=0.8", "--out", "compared")
    assert done.code == 0, done.err
    rows = json.loads((tmp_path / "compared" / "compare.json").read_text())["rows"]
    assert [(row["method"], row["reason"]) for row in rows] == [("unpruned", ""), ("accurate", ""), ("l1-global", "")]
    assert [*rows[0]["accuracy"]] == ["top1", "top5"]
    done = run("sensitivity", net, *how, "--ratios", "0.5", "--out", "found.json")
    assert done.code == 0, done.err
    assert [point["layer"] for point in json.loads((tmp_path / "found.json").read_text())["points"]] == ["one", "two"]
    done = run("inspect", net, "--trust")
    assert "pinned: network output" in done.out
    assert [layer["name"] for layer in json.loads(run("inspect", net, "--json", "--trust").out)["layers"]] == [
        *("one", "two", "head")
    ]


def test_a_function_gives_the_data_too(run: Any, net: str) -> None:
    data = net.replace(":net", ":pair")
    done = run("prune", net, "--data", data, *WHOLE, "--trust", "--images", 8)
    assert done.code == 0, done.err
    refused = run("prune", "torchvision:shufflenet_v2_x0_5", "--data", data, *WHOLE)
    assert refused.code == 2
    assert "its code would run: give --trust" in refused.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nowhere.module:net",), "its code would run: give --trust"),
        (("torchvision:resnet19",), "torchvision has no network 'resnet19': did you mean resnet18"),
        (("torchvision:resnet18", "--weights", "w.onnx"), "weights end in .safetensors"),
        (("torchvision:resnet18", "--weights", "w.pt"), "w.pt: no such file"),
        (("torchvision:resnet18", "--std", "0,1,1"), "std greater than 0"),
        (("torchvision:resnet18", "--mean", "a"), "--mean 'a': give numbers"),
        (("torchvision:resnet18", "--data", "nowhere"), "nowhere: no such folder"),
        (("torchvision:resnet18", "--finetune", "1", "--data", "."), "train this one in a loop of your own"),
        (("torchvision:resnet18", "--classes", "cat"), "leave it out"),
        (("torchvision:resnet18", "--by", "size", "--preset", "accurate", "--data", "."), "leave it out"),
        (("yolov8n.yaml", "--weights", "w.pt"), "are for networks by the name of what builds them"),
    ],
)
def test_what_cannot_be_is_one_line_and_leaves_nothing(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    preset = () if "--preset" in arguments else ("--preset", "fast")
    done = run("prune", *arguments, *preset, *(() if "--data" in arguments else ("--no-val",)))
    assert done.code == 2, done.err
    assert said in done.err
    assert done.err.count("\n") == 1
    assert not list(tmp_path.iterdir())
