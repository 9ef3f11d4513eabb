"""Deadlines that count only the time in which this event loop ran.

On a starved CPU this process stands still for longer than a nameserver or Redis may take, and a
deadline on the clock then passes although the answer has already arrived.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

STEPS: Final = 10
"""A deadline is waited for in so many steps; a step that ends late is a stall of this process."""
TURNS: Final = 8
"""Turns of the event loop in which an answer that has arrived reaches the task that awaits it."""

Result = TypeVar("Result")


async def within(seconds: float, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of `work`; raises `TimeoutError` after `seconds` in which the loop ran.

    A stall counts for nothing, up to `STEPS` stalls; each further one counts as one step, so the
    wait ends on a machine that never stops stalling, too. An answer that has arrived by the end
    is returned. When the wait ends, `work` is cancelled.
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
    """The wait is over: how `task` ends after it concerns no caller."""
    if not task.cancelled():
        task.exception()
