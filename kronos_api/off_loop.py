"""Calls that would hold up the event loop, in a worker thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


async def off_loop(large: bool, call: Callable[..., Result], *args: object) -> Result:
    """The result of `call(*args)`, made in a thread if its input is `large`.

    A thread costs a tenth of a millisecond, so small calls are made at once.
    """
    return await asyncio.to_thread(call, *args) if large else call(*args)
