"""Front-to-back channel pruning of trained detectors."""

from seqprune.graph import ChannelGraph, trace, widths
from seqprune.plan import PrunePlan
from seqprune.surgery import compact, count_active_channels, mask, verify
from seqprune.yolo.widths import WIDTH_ATTRIBUTES

widths.register(WIDTH_ATTRIBUTES)

__all__ = ["ChannelGraph", "PrunePlan", "compact", "count_active_channels", "mask", "trace", "verify"]
