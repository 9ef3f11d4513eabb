"""A blocking call in a daemon thread, with its result as a future.

Reading a file system that is gone, or a hub that never responds, may block for ever, and no thread
can be stopped from outside. The interpreter waits at its exit for the threads of an executor, but
not for daemon threads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

Result = TypeVar("Result")


def run_in_daemon_thread(call: Callable[[], Result], name: str) -> Future[Result]:
    """Start `call` in a new daemon thread called `name`.

    Wait for it with `future.result(timeout)`, which raises `TimeoutError` at the deadline, or from
    an event loop with `asyncio.wrap_future`. The call goes on after either gave up; its result is
    then dropped.
    """
    future: Future[Result] = Future()
    future.set_running_or_notify_cancel()

    def run() -> None:
        try:
            result = call()
        except BaseException as failure:
            future.set_exception(failure)
        else:
            future.set_result(result)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future
