"""Which layers are pruned when none are named."""

from __future__ import annotations

import pytest

from seqprune.errors import InputError
from seqprune.select.layers import block_of, choose_layers, parse_blocks

WIDTHS = [
    ("model.0.conv", 16),
    ("model.1.a", 32),
    ("model.1.b", 64),
    ("model.1.c", 64),
    ("model.2.conv", 32),
    ("head", 99),
]


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("model.5.cv1.conv", 5),
        ("5", 5),
        ("12.conv", 12),
        ("model.12", 12),
        ("conv1", None),
        ("a.b.3", None),
        ("", None),
    ],
)
def test_the_block_of_a_layer(name: str, block: int | None) -> None:
    assert block_of(name) == block


@pytest.mark.parametrize(
    ("count", "chosen"),
    [
        (1, ["model.1.b"]),  # of two as wide the one nearer to the front
        (2, ["model.1.b", "model.2.conv"]),
        (3, ["model.0.conv", "model.1.b", "model.2.conv"]),
        (4, ["model.0.conv", "model.1.b", "model.1.c", "model.2.conv"]),
        (5, ["model.0.conv", "model.1.a", "model.1.b", "model.1.c", "model.2.conv"]),
    ],
)
def test_every_block_gives_one_before_any_gives_two(count: int, chosen: list[str]) -> None:
    assert choose_layers(WIDTHS, (0, 1, 2), count) == chosen
    assert choose_layers(WIDTHS, (2, 1, 0, 1), count) == chosen


def test_counts_and_blocks_that_there_are() -> None:
    assert choose_layers(WIDTHS, (0, 7), 1) == ["model.0.conv"]
    with pytest.raises(InputError, match="no prunable convolution in block 7, 8: "):
        choose_layers(WIDTHS, (7, 8), 1)
    for count in (0, 6, -1):
        with pytest.raises(InputError, match=f"^{count} layers asked for, blocks 0, 1, 2 have 5: "):
            choose_layers(WIDTHS, (0, 1, 2), count)


@pytest.mark.parametrize(
    ("text", "blocks"),
    [("1-5", (1, 2, 3, 4, 5)), ("3", (3,)), ("1-3,6, 8 - 9", (1, 2, 3, 6, 8, 9)), ("4-4", (4,)), ("2,1-3", (2, 1, 3))],
)
def test_blocks_as_they_are_written(text: str, blocks: tuple[int, ...]) -> None:
    assert parse_blocks(text) == blocks


@pytest.mark.parametrize("text", ["", "a", "1-", "-1", "5-4", "1,,2", "1-2-3", "1.5", "1-1000000000"])
def test_what_names_no_blocks(text: str) -> None:
    with pytest.raises(InputError, match="names no blocks"):
        parse_blocks(text)


def test_layers_stand_front_to_back_not_by_their_names() -> None:
    later = [("model.2.conv", 8), ("model.10.conv", 8), ("model.1.late", 8)]
    assert choose_layers(later, (1, 2, 10), 3) == [name for name, _ in later]
