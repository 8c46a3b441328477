"""What :mod:`killed` needs, imported and run once: what is forked from here starts at once."""

from __future__ import annotations

import killed

killed.warm()
