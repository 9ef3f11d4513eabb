"""Bounds of a forecast request: over HTTP, on the command line, in settings and from Python."""

from __future__ import annotations

import secrets
from typing import Final

MAX_HISTORY: Final = 2048
"""Candles of a history."""
MAX_HORIZON: Final = 512
"""Candles to forecast."""
MAX_SEED: Final = 2**53 - 1
"""Seeds survive readers of JSON that hold numbers as doubles."""
LEAST_TEMPERATURE: Final = 0.001
"""Of those above 0, which is greedy."""
MAX_TEMPERATURE: Final = 100
MAX_TOP_K: Final = 1024


def random_seed() -> int:
    """The seed of a forecast whose request has none."""
    return secrets.randbelow(MAX_SEED + 1)
