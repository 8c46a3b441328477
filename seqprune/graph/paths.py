"""Modules by their paths."""

from __future__ import annotations

from collections import Counter

from torch import nn


def module_at(model: nn.Module, path: str) -> nn.Module | None:
    """The module of that path; ``None`` where there is none, or it has another path before that."""
    return dict(model.named_modules()).get(path)


def reached_once(model: nn.Module) -> set[int]:
    """``id`` of every module that one path alone leads to."""
    paths = Counter(id(module) for _, module in model.named_modules(remove_duplicate=False))
    return {known for known, times in paths.items() if times == 1}
