"""Takes the candles of a stream from the engine's thread to the event loop, without waiting."""

from __future__ import annotations

import asyncio
import contextlib
from typing import NamedTuple

from kronos_api.timeseries.features import Floats, Scale


class NewCandles(NamedTuple):
    """Normalised candles of consecutive steps, float32 [sample_count, n, 6], and their scale."""

    values: Floats
    scale: Scale


class CandleChannel:
    """A queue between the engine's thread and the event loop in which it is made.

    It never makes the engine wait: a forecast has at most 512 steps, so all of its candles may lie
    here until a slow reader takes them.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[NewCandles | None] = asyncio.Queue()

    def send(self, values: Floats, scale: Scale) -> None:
        """Send candles; called in the engine's thread."""
        self._put(NewCandles(values, scale))

    def end(self, _: object = None) -> None:
        """Send the end, after the last candles; called in any thread."""
        self._put(None)

    async def receive(self, by: float) -> NewCandles | None:
        """The next candles; None at the end. Raises `TimeoutError` at `by`, of the loop's clock."""
        async with asyncio.timeout_at(by):
            return await self._queue.get()

    def _put(self, item: NewCandles | None) -> None:
        # The loop is closed where a process ends before its engine has stopped.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._queue.put_nowait, item)
