"""The command line."""

from __future__ import annotations

from seqprune.cli.app import call, main

__all__ = ["call", "main"]
