"""Deadlines that count only the time in which this event loop ran.

On a starved CPU this process stalls for longer than the timeout of a nameserver or of Redis. A
deadline on the clock then passes although the response has already arrived.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

STEPS: Final = 10
"""Steps in which a deadline is awaited; a step that ends late was a stall of this process."""
TURNS: Final = 8
"""Iterations of the event loop until a response that has arrived reaches the awaiting task."""

Result = TypeVar("Result")


async def within(seconds: float, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of `work`; raises `TimeoutError` after `seconds` in which the loop ran.

    The first `STEPS` stalls do not count; each further one counts as one step, so that the wait
    ends even on a machine that keeps stalling. A response that has arrived by the end is returned.
    When the wait ends, `work` is cancelled.
    """
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(work)
    step = seconds / STEPS
    counted = stalls = 0
    try:
        while counted < STEPS:
            began = loop.time()
            await asyncio.wait({task}, timeout=step)
            if task.done():
                return task.result()
            if loop.time() - began > 2 * step and stalls < STEPS:
                stalls += 1
            else:
                counted += 1
        for _ in range(TURNS):
            await asyncio.sleep(0)
            if task.done():
                return task.result()
        raise TimeoutError(f"no answer within {seconds * 1000:.0f} ms")
    finally:
        if not task.done():
            task.cancel()
            task.add_done_callback(_ignore)


def _ignore(task: asyncio.Future[Any]) -> None:
    """Retrieve the exception of a task that ended after the wait, so that asyncio logs nothing."""
    if not task.cancelled():
        task.exception()
