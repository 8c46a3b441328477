"""The old place of what is in :mod:`seqprune.testing` now, for tests that still import it from here."""

from seqprune.testing.networks import *  # noqa: F403
from seqprune.testing.strategies import networks as networks
