"""The table of width attributes against the modules themselves."""

from __future__ import annotations

import inspect

import pytest
import torch
from ultralytics.nn.modules import block

from seqprune.graph.facts import WIDTH_ATTRIBUTES

ARGUMENTS = {"RepNCSPELAN4": (32, 32, 24, 8), "ELAN1": (32, 32, 24, 8)}
BY_NAME = {name.rpartition(".")[2]: rule for name, rule in WIDTH_ATTRIBUTES.items()}


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_the_rule_gives_the_attribute_ultralytics_sets(name: str) -> None:
    made = getattr(block, name)(*ARGUMENTS.get(name, (128, 128)))
    for attribute, (path, divisor) in BY_NAME[name].items():
        assert getattr(made, attribute) == made.get_submodule(path).out_channels // divisor


def test_every_module_that_splits_by_an_attribute_is_listed() -> None:
    splitting = {
        name
        for name, kind in inspect.getmembers(block, inspect.isclass)
        if kind.__module__ == block.__name__
        for method in ("forward", "forward_split")
        if issubclass(kind, torch.nn.Module) and hasattr(kind, method)
        if "split((self.c," in inspect.getsource(getattr(kind, method))
    }
    assert splitting == set(BY_NAME) - {"ADown", "C3x"}  # whose widths nothing reads


def test_a_stale_attribute_breaks_the_exported_forward() -> None:
    """Why the table exists: ``forward_split``, which the exporter uses, cuts by the attribute."""
    unit = block.C2f(16, 16).eval()
    unit.c = 4
    with pytest.raises(RuntimeError, match="split_with_sizes"):
        unit.forward_split(torch.zeros(1, 16, 4, 4))
