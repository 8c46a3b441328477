"""Which module is named where a network fails, whatever failed and was caught before."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from seqprune import trace
from seqprune.errors import ModelError

X = torch.zeros(1, 3, 4, 4)


class Fails(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("too small")


class Net(nn.Module):
    """Two blocks that fail, one that does not, and code that calls them."""

    def __init__(self, code: Callable[[Net, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.layer, self.one, self.two, self.fine = nn.Conv2d(3, 4, 1), Fails(), Fails(), nn.ReLU()
        self.code = code

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.code(self, self.layer(x))


def caught(module: nn.Module, x: torch.Tensor) -> RuntimeError:
    try:
        module(x)
    except RuntimeError as error:
        return error
    raise AssertionError("it does not fail")


def later(net: Net, x: torch.Tensor) -> torch.Tensor:
    error = caught(net.one, x)
    net.fine(x)
    raise error


def another(net: Net, x: torch.Tensor) -> torch.Tensor:
    caught(net.one, x)
    return net.two(x)


@pytest.mark.parametrize(("code", "named"), [(later, "one"), (another, "two")])
def test_the_module_whose_error_ends_the_pass_is_named(
    code: Callable[[Net, torch.Tensor], torch.Tensor], named: str
) -> None:
    with pytest.raises(ModelError, match=f": {named} raised RuntimeError: too small"):
        trace(Net(code), X)


def test_a_layer_that_gets_too_many_of_channels_that_are_not_followed() -> None:
    def code(net: Net, x: torch.Tensor) -> torch.Tensor:
        other = nn.Parameter(x)
        other.relu()
        return net.narrow(other)

    net = Net(code)
    net.narrow = nn.Conv2d(2, 2, 1)
    with pytest.raises(ModelError, match="narrow takes 2 channels, but 4 reach it: the model was pruned by halves"):
        trace(net, X)


def test_a_layer_that_gets_too_many_channels_of_a_constant() -> None:
    class Fixed(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(torch.zeros(1, 5, 4, 4)) + x

    with pytest.raises(ModelError, match="0 takes 3 channels, but 5 reach it: the model was pruned"):
        trace(Fixed(nn.Conv2d(3, 3, 1)), X)


def test_a_view_that_fails_is_caught_by_the_network_as_ever() -> None:
    def tries(_net: Net, x: torch.Tensor) -> torch.Tensor:
        try:
            return x.view(7)
        except RuntimeError:
            return x

    assert [each.reason for each in trace(Net(tries), X).barriers] == ["it fails, with RuntimeError"]


def test_a_hook_of_the_network_that_fails_before_it_starts(recwarn: pytest.WarningsRecorder) -> None:
    def fail(_module: nn.Module, _given: object) -> None:
        raise KeyError("no such size")

    net = nn.Sequential(nn.Conv2d(3, 4, 1))
    net.register_forward_pre_hook(fail)
    with pytest.raises(ModelError, match=": the network raised KeyError"):
        trace(net, X)
    assert [str(each.message) for each in recwarn] == []
