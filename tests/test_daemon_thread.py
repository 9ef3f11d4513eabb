"""Blocking calls in daemon threads: result, failure, deadline."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest

from kronos_api.daemon_thread import run_in_daemon_thread


def test_the_result_and_the_name_of_the_thread() -> None:
    future = run_in_daemon_thread(lambda: threading.current_thread().name, "reading")
    assert future.result(10) == "reading"


def test_a_failure_is_raised_where_the_result_is_awaited() -> None:
    def fail() -> None:
        raise OSError("disk is gone")

    with pytest.raises(OSError, match="disk is gone"):
        run_in_daemon_thread(fail, "reading").result(10)


def test_a_call_that_blocks_is_given_up_at_the_deadline() -> None:
    release = threading.Event()
    with pytest.raises(TimeoutError):
        run_in_daemon_thread(release.wait, "reading").result(0.01)
    release.set()


async def test_an_event_loop_awaits_it_and_may_give_up() -> None:
    release = threading.Event()
    assert await asyncio.wrap_future(run_in_daemon_thread(lambda: 7, "reading")) == 7
    future = run_in_daemon_thread(release.wait, "reading")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await asyncio.wrap_future(future)
    release.set()
    assert future.result(10)


def test_the_process_ends_while_a_call_blocks() -> None:
    code = (
        "import threading; from kronos_api.daemon_thread import run_in_daemon_thread;"
        "run_in_daemon_thread(threading.Event().wait, 'reading')"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
