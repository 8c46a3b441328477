"""What a network costs, counted before it is paid: beside torch's own counts, and every limit from both sides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional as F  # noqa: N812 - its usual name
from torch.utils.flop_counter import FlopCounterMode

from seqprune.errors import ModelError
from seqprune.yolo.files import bounded as rooms
from seqprune.yolo.files.bounded import bounded

X = torch.rand(2, 6, 9, 12)
WEIGHT, DEEP, UP = torch.rand(4, 6, 3, 3), torch.rand(4, 3, 3, 1), torch.rand(6, 2, 3, 2)

MULTIPLIES: dict[str, Callable[[], torch.Tensor]] = {
    "convolution": lambda: F.conv2d(X, WEIGHT),
    "one cell": lambda: F.conv2d(X, torch.rand(4, 6, 9, 12)),
    "strides and borders": lambda: F.conv2d(X, WEIGHT, stride=(2, 3), padding=(1, 2)),
    "one stride for all": lambda: torch.convolution(X, WEIGHT, None, [2], [1], [1], False, [0], 1),
    "holes": lambda: F.conv2d(X, WEIGHT, dilation=(2, 3), padding=3),
    "groups": lambda: F.conv2d(X, DEEP, groups=2),
    "rows": lambda: F.conv1d(X[..., 0], WEIGHT[..., 0], padding=1),
    "linear": lambda: F.linear(X.flatten(0, 2), torch.rand(5, 12), torch.rand(5)),
    "linear without a bias": lambda: F.linear(X.flatten(0, 2), torch.rand(5, 12)),
    "products side by side": lambda: torch.bmm(X[0], X[0].transpose(1, 2)),
    "products added": lambda: torch.baddbmm(torch.rand(6, 9, 9), X[0], X[0].transpose(1, 2)),
    "transposed": lambda: F.conv_transpose2d(X, UP),
    "transposed with strides": lambda: F.conv_transpose2d(X, UP, stride=(3, 2)),
    "transposed with holes": lambda: F.conv_transpose2d(X, UP, dilation=(2, 3)),
    "transposed in groups": lambda: F.conv_transpose2d(X, UP, groups=3),
}
ENLARGES: dict[str, Callable[[], torch.Tensor]] = {
    "nearest": lambda: F.interpolate(X, (20, 30)),
    "bilinear": lambda: F.interpolate(X, (20, 30), mode="bilinear"),
    "zeros around": lambda: F.pad(X, (1, 2, 3, 4)),
    "zeros on one side": lambda: F.pad(X, (5, 0)),
    "less around": lambda: F.pad(X, (-1, -2, -3, 4)),
    "copies around": lambda: F.pad(X, (1, 2, 3, 4), mode="replicate"),
    "repeated": lambda: X.repeat(2, 1, 3, 1),
}


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Of every operation the greatest map and the multiplications that were expected."""
    found: list[tuple[int, int]] = []
    expected = rooms._expected

    def kept(name: str, args: Any) -> tuple[int, int]:
        found.append(expected(name, args))
        return found[-1]

    monkeypatch.setattr(rooms, "_expected", kept)
    return found


@pytest.mark.parametrize("name", MULTIPLIES)
def test_multiplications_are_torchs_own(name: str, counted: list[tuple[int, int]]) -> None:
    with bounded():
        out = MULTIPLIES[name]()
    flops = FlopCounterMode(display=False)
    with flops:
        MULTIPLIES[name]()
    assert max(largest for largest, _ in counted) == out.numel()
    assert sum(work for _, work in counted) == flops.get_total_flops() / 2


def test_attention_is_counted_twice_by_its_length(counted: list[tuple[int, int]]) -> None:
    queries, keys = torch.rand(2, 3, 5, 8), torch.rand(2, 3, 7, 8)
    with bounded():
        out = F.scaled_dot_product_attention(queries, keys, keys)
    assert max(largest for largest, _ in counted) >= out.numel()
    assert sum(work for _, work in counted) >= 2 * 2 * 3 * 5 * 7 * 8
    found = rooms._expected("_scaled_dot_product_flash_attention_for_cpu.default", (queries, keys, keys))
    assert found == (2 * 3 * 5 * 8, 2 * 2 * 3 * 5 * 7 * 8)


@pytest.mark.parametrize("name", ENLARGES)
def test_maps_that_grow_are_counted_before_they_do(name: str, counted: list[tuple[int, int]]) -> None:
    with bounded():
        out = ENLARGES[name]()
    assert max(largest for largest, _ in counted) == out.numel()
    assert not any(work for _, work in counted)


def test_what_takes_no_memory_is_not_counted(counted: list[tuple[int, int]]) -> None:
    with bounded():
        X[:1].expand(100, -1, -1, -1)
        X.relu()
        X.sum()
    assert not any(largest or work for largest, work in counted)


MADE: dict[str, tuple[Callable[[], Any], int]] = {
    "empty": (lambda: torch.empty(3, 4), 12),
    "full": (lambda: torch.full((3, 5), 1.0), 15),
    "arange": (lambda: torch.arange(12), 12),
    "arange between": (lambda: torch.arange(-3, 9), 9),
    "eye": (lambda: torch.eye(4), 4),
    "from a tensor": (lambda: X.new_empty(4, 5), 0),
    "nothing": (lambda: torch.empty(0), 0),
    "a tensor and a number": (lambda: X.add(1000), 0),
}


@pytest.mark.parametrize("name", MADE)
def test_values_made_of_nothing(name: str) -> None:
    make, values = MADE[name]
    with rooms._Counted() as counting:
        make()
    assert counting.values == values


def test_what_is_given_no_sizes_makes_no_map() -> None:
    for args in ([], [X], [X, 0.5], [X, None], [[3], [4]], [None, [4]]):
        for name in ("upsample_nearest2d.default", "constant_pad_nd.default", "repeat.default", "to_padded_tensor"):
            assert rooms._expected(name, args) == (0, 0)
    assert rooms._expected("constant_pad_nd.default", [X, [-20, 0]]) == (0, 0)


def test_what_torch_refuses_it_refuses_in_its_own_words() -> None:
    with bounded(), pytest.raises(RuntimeError, match="stride"):
        F.conv2d(X, WEIGHT, stride=0)


def test_words_make_no_values() -> None:
    assert rooms._numbers([2**63 - 1]) == 2**63 - 1
    assert [rooms._numbers(args) for args in ([], [None], ["x", None], [[2, "x"]], [3.0], [2**63])] == [
        0,
        0,
        0,
        0,
        3,
        0,
    ]


LIMITS: dict[str, tuple[str, int, Callable[[], Any], str]] = {
    "operations": ("_OPERATIONS", 3, lambda: [X.relu() for _ in range(3)], "3 operations"),
    "values": ("_VALUES", 24, lambda: [torch.empty(12) for _ in range(2)], "24 values,"),
    "one map": ("_LARGEST", 2 * 6 * 20 * 30, lambda: F.interpolate(X, (20, 30)), "7,200 values in one map"),
    "multiplications": ("_MULTIPLICATIONS", 60, lambda: torch.rand(3, 4) @ torch.rand(4, 5), "60 multiplications"),
}


@pytest.mark.parametrize("name", LIMITS)
def test_limits(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    limit, most, run, said = LIMITS[name]
    monkeypatch.setattr(rooms, limit, most)
    with bounded():
        run()
    monkeypatch.setattr(rooms, limit, most - 1)
    said = said.replace(f"{most:,}", f"{most - 1:,}")
    with pytest.raises(ModelError, match=f"takes more than {said}"), bounded():
        run()


def test_nothing_is_counted_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    with bounded():
        X.relu()
    monkeypatch.setattr(rooms, "_OPERATIONS", 0)
    X.relu()
