"""What a preset leaves open: a ratio is rounded to counts that run fast, a knee is left as it comes."""

from __future__ import annotations

import pytest

from seqprune.engine.presets import settings_of


@pytest.mark.parametrize(
    ("keep", "round_to", "expected"),
    [(0.9, None, 8), (0.9, 1, 1), (0.9, 4, 4), (None, None, 1), ("knee", None, 1), ("interpolated-knee", 16, 16)],
)
def test_ratios_are_rounded_and_knees_are_not(keep: float | str | None, round_to: int | None, expected: int) -> None:
    """YOLOv8n at a keep ratio of 0.9 ran slower than unpruned in ONNX Runtime, with odd counts in every layer."""
    assert settings_of("activation", keep, None, None, round_to, 0).round_to == expected


@pytest.mark.parametrize("preset", ["accurate", "fast"])
def test_so_are_counts_under_a_target(preset: str) -> None:
    assert settings_of(preset, None, None, None, None, 0).round_to == 8
    assert settings_of(preset, None, None, None, 1, 0).round_to == 1
