"""Per-operator channel rules, one file a kind; importing this package fills the table."""

from seqprune.graph.rules import (
    choosing,
    contracting,
    elementwise,
    heads,
    indexing,
    joining,
    reshaping,
    sampling,
    spatial,
    weighted,
)
from seqprune.graph.rules.table import RULES, TAKES_OPAQUE, Rule, check_dims, misfit, rule
from seqprune.graph.values import NoRule

__all__ = [
    "RULES",
    "TAKES_OPAQUE",
    "NoRule",
    "Rule",
    "check_dims",
    "choosing",
    "contracting",
    "elementwise",
    "heads",
    "indexing",
    "joining",
    "misfit",
    "reshaping",
    "rule",
    "sampling",
    "spatial",
    "weighted",
]
