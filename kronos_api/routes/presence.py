"""Work for a caller that ends when the caller disconnects."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect
from starlette.types import Receive

Result = TypeVar("Result")


async def while_present(receive: Receive, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of `work`, which is cancelled if the caller disconnects first.

    The body must have been read.

    Raises:
        ClientDisconnect: the caller disconnected.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        await _cancel(working, leaving)


async def items_while_present(
    receive: Receive, items: AsyncGenerator[Result], idle: float
) -> AsyncGenerator[Result | None]:
    """All of `items`, and None whenever `idle` seconds pass without one.

    `items` is closed at the end, or as soon as the caller disconnects.

    Raises:
        ClientDisconnect: the caller disconnected.
    """
    leaving = asyncio.ensure_future(_disconnected(receive))
    waiting: asyncio.Future[Result] | None = None
    async with aclosing(items):
        try:
            while True:
                waiting = waiting or asyncio.ensure_future(anext(items))
                both: set[asyncio.Future[Any]] = {waiting, leaving}
                await asyncio.wait(both, timeout=idle, return_when=asyncio.FIRST_COMPLETED)
                if leaving.done():
                    raise ClientDisconnect
                if not waiting.done():
                    yield None
                    continue
                try:
                    item, waiting = waiting.result(), None
                except StopAsyncIteration:
                    return
                yield item
        finally:
            await _cancel(leaving, *([waiting] if waiting else []))


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _cancel(*tasks: asyncio.Future[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
