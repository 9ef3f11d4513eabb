"""The one deadline of a request, KRONOS_REQUEST_TIMEOUT."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from kronos_api.errors import PredictionTimeout


@asynccontextmanager
async def in_time(timeout: float) -> AsyncIterator[float]:
    """The deadline `timeout` seconds from now, of the loop's clock.

    Raises:
        PredictionTimeout: the deadline passed.
    """
    deadline = asyncio.get_running_loop().time() + timeout
    try:
        async with asyncio.timeout_at(deadline):
            yield deadline
    except TimeoutError:
        raise PredictionTimeout(
            f"The request exceeded KRONOS_REQUEST_TIMEOUT ({timeout:g} s) and was"
            " cancelled. Ask for fewer series, sample paths or steps, or raise"
            " KRONOS_REQUEST_TIMEOUT."
        ) from None


def seconds_left(deadline: float) -> float:
    """Seconds until `deadline`, more than 0."""
    return max(deadline - asyncio.get_running_loop().time(), 0.001)
