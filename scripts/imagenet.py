"""Prunes a classifier of timm's without training or labels and says what stays of its top-1; Torch-Pruning beside it.

``python scripts/imagenet.py FOLDER --weights FILE --target 0.8,0.6``: ``FOLDER`` holds ``calib`` and ``eval``, images
whose names begin with the number of their class and ``_``. The first are looked at, the second measured.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torch_pruning
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

import seqprune
from seqprune.budget.cost import gflops

SIDE, MEAN, DEVIATION = 224, 0.5, 0.5
METHODS = ("accurate", "tp-magnitude", "tp-taylor", "tp-group-norm")
TRIES = 8  # of ratios, for the target


class Named(Dataset[tuple[torch.Tensor, int]]):
    """Images of a folder by file name: the middle of each, and the class that its name begins with."""

    def __init__(self, folder: Path) -> None:
        self.files = sorted(folder.iterdir())

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, at: int) -> tuple[torch.Tensor, int]:
        with Image.open(self.files[at]) as image:
            left, top = (image.width - SIDE) // 2, (image.height - SIDE) // 2
            pixels = np.asarray(image.convert("RGB").crop((left, top, left + SIDE, top + SIDE)), np.float32) / 255
        return torch.from_numpy((pixels - MEAN) / DEVIATION).permute(2, 0, 1), int(self.files[at].name.split("_")[0])


def top1(model: nn.Module, loader: DataLoader[Any]) -> float:
    with torch.no_grad():
        right = [(model(images).argmax(1) == classes).float() for images, classes in loader]
    return float(torch.cat(right).mean())


def ours(images: int | None, model: nn.Module, target: str, loader: DataLoader[Any], seed: int) -> nn.Module:
    """Of the loader's batches the images alone are read: no label is looked at."""
    return seqprune.prune(
        model, loader, preset="accurate", target=f"flops={target}", images=images, batch=25, seed=seed
    ).model


def torch_pruning_by(importance: Any) -> Callable[[nn.Module, str, DataLoader[Any], int], nn.Module]:
    """As its README says, the classifier left out, in one step at the ratio that leaves the target."""

    def prune(model: nn.Module, target: str, loader: DataLoader[Any], _seed: int) -> nn.Module:
        whole, example = deepcopy(model).eval(), torch.zeros(1, 3, SIDE, SIDE)
        if isinstance(importance, torch_pruning.importance.TaylorImportance):
            for images, classes in loader:
                functional.cross_entropy(whole(images), classes, reduction="sum").backward()  # type: ignore[no-untyped-call]
        low, high, best = 0.0, 1.0, whole
        for _ in range(TRIES):
            copy, ratio = deepcopy(whole), (low + high) / 2
            for mine, its in zip(copy.parameters(), whole.parameters(), strict=True):
                mine.grad = None if its.grad is None else its.grad.clone()
            ignored = [each for each in copy.modules() if isinstance(each, nn.Linear)]
            torch_pruning.pruner.BasePruner(
                *(copy, example, importance), pruning_ratio=ratio, ignored_layers=ignored, round_to=8
            ).step()
            enough = gflops(copy, example) <= float(target) * gflops(whole, example)
            low, high, best = (low, ratio, copy) if enough else (ratio, high, best)
        return best

    return prune


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="tf_efficientnet_lite0")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--target", default="0.8,0.6", help="of the operations, one or several")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--images", type=int, help="that accurate looks at, a seeded sample; all where left out")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    importances = torch_pruning.importance
    ways = {
        "accurate": partial(ours, given.images),
        "tp-magnitude": torch_pruning_by(importances.MagnitudeImportance(p=1, group_reduction="first")),
        "tp-taylor": torch_pruning_by(importances.TaylorImportance()),
        "tp-group-norm": torch_pruning_by(importances.MagnitudeImportance(p=2)),
    }
    model = timm.create_model(given.model).eval()
    model.load_state_dict(load_file(given.weights))
    calib, evaluation = (DataLoader(Named(given.folder / part), batch_size=25) for part in ("calib", "eval"))
    whole, example = top1(model, evaluation), torch.zeros(1, 3, SIDE, SIDE)
    print(f"unpruned: top-1 {whole:.4f}")  # noqa: T201 - a program
    for target in given.target.split(","):
        for name in given.methods.split(","):
            torch.manual_seed(given.seed)
            begun = time.process_time()
            small = ways[name](model, target, calib, given.seed)
            took = time.process_time() - begun
            kept, share = top1(small, evaluation), gflops(small, example) / gflops(model, example)
            print(f"{name}: operations {share:.3f}, top-1 {kept:.4f} = {kept / whole:.1%}, {took:.0f} s", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
