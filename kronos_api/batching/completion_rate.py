"""The measured rate at which forecasts end, for the time after which a refused one is retried."""

from __future__ import annotations

import math
from typing import Final

RECENT: Final = 20.0
"""Seconds of a busy engine after which a measurement weighs 1/e."""


class CompletionRate:
    """Forecasts that end in a second while the engine is busy. Times are of one clock.

    Recent seconds weigh more, so the rate falls while large forecasts run and none ends. It starts
    at 1 a second, with the weight of one second.
    """

    def __init__(self) -> None:
        self._ended = 1.0
        self._seconds = 1.0
        self._noted_at = 0.0

    @property
    def per_second(self) -> float:
        """The present rate; above 0."""
        return self._ended / self._seconds

    def resume(self, now: float) -> None:
        """The engine was idle until `now`, unless the last call of `note` was later."""
        self._noted_at = max(self._noted_at, now)

    def note(self, ended: int, now: float) -> None:
        """Count `ended` forecasts, and the busy time since the last call."""
        seconds = now - self._noted_at
        self._noted_at = now
        fading = math.exp(-seconds / RECENT)
        self._ended = self._ended * fading + ended
        self._seconds = self._seconds * fading + seconds
