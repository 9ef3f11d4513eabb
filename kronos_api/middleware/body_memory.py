"""The memory for request bodies, which all requests of a process share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from starlette.types import Scope

from kronos_api.errors import QueueFull
from kronos_api.middleware.callers import caller_key
from kronos_api.telemetry.metrics import metrics


class BodyMemory:
    """Counts the bytes of request bodies in memory, in total and by caller.

    The total is at most `size` bytes. One caller has at most half of them, so that no caller can
    keep all others out.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.held = 0
        """Bytes of all bodies at the moment."""
        self._by_caller: Counter[str] = Counter()

    @contextmanager
    def share(self, scope: Scope) -> Iterator[Callable[[int], None]]:
        """Yields `take(n)`, which counts `n` bytes until the context ends.

        `take` raises `QueueFull` if the caller's half, or the whole, would be exceeded.
        """
        caller = caller_key(scope)
        taken = 0

        def take(size: int) -> None:
            nonlocal taken
            self._check(caller, size)
            taken += size
            self.held += size
            self._by_caller[caller] += size

        try:
            yield take
        finally:
            self.held -= taken
            self._by_caller[caller] -= taken
            if not self._by_caller[caller]:  # else the table grows with every new caller
                del self._by_caller[caller]

    def _check(self, caller: str, size: int) -> None:
        whose, held, most = "This caller's", self._by_caller[caller], self.size // 2
        if held + size <= most:
            whose, held, most = "All callers'", self.held, self.size
        if held + size > most:
            metrics.admission_refusals.inc()
            message = (
                f"{whose} request bodies in progress hold {held} of {most} bytes; {size} more do "
                "not fit. Retry in 1 s, send smaller bodies, or raise KRONOS_BODY_MEMORY_MB."
            )
            raise QueueFull(message, retry_after=1)
