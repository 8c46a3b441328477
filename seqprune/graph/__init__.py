"""Where channels go: capture, a table of per-operator rules, and the graph they make."""

from seqprune.graph.capture import trace
from seqprune.graph.channels import Balance, Barrier, Bundle, ChannelGraph, Layer, Slice, Width
from seqprune.graph.extending import operator, register_rule, register_standin, register_widths

__all__ = [
    "Balance",
    "Barrier",
    "Bundle",
    "ChannelGraph",
    "Layer",
    "Slice",
    "Width",
    "operator",
    "register_rule",
    "register_standin",
    "register_widths",
    "trace",
]
