"""The engine's thread: loading, serving, closing."""

from __future__ import annotations

import threading
import time

import pytest

from kronos_api.batching import engine_thread
from kronos_api.batching.engine_thread import EngineThread
from kronos_api.batching.scheduler import Scheduler
from kronos_api.batching.ticket import Ticket
from kronos_api.errors import InternalError, ShuttingDown, StartupError
from tests.batching.simulation import request
from tests.fakes import FAKE_INFO, SleepyEngine

SOON = 30.0


def ticket() -> Ticket:
    now = time.monotonic()
    return Ticket(request(2), now, now + SOON, SOON)


def started(engine: SleepyEngine) -> EngineThread:
    thread = EngineThread(lambda: engine, Scheduler(8, 100, 4))
    thread.start()
    assert thread.loaded.wait(SOON)
    return thread


def ended(thread: EngineThread) -> bool:
    give_up = time.monotonic() + SOON
    while not thread.close() and time.monotonic() < give_up:
        time.sleep(0.001)
    return thread.close()


def test_accepted_forecasts_are_finished_before_it_ends() -> None:
    thread = started(SleepyEngine())
    assert thread.info == FAKE_INFO
    tickets = [ticket(), ticket()]
    thread.submit(tickets)
    assert ended(thread)
    assert all(one.future.result(0).values is not None for one in tickets)
    assert (thread.waiting, thread.active, thread.kv_cache_bytes) == (0, 0, 0)


def test_closed_thread_accepts_nothing() -> None:
    thread = started(SleepyEngine())
    assert ended(thread)
    with pytest.raises(ShuttingDown) as refusal:
        thread.submit([ticket()])
    assert refusal.value.retry_after == 1


@pytest.mark.parametrize(
    ("failure", "message"),
    [(StartupError("no such device"), "no such device"), (ValueError("bad"), "not be loaded: bad")],
)
def test_failed_load_is_kept(failure: Exception, message: str) -> None:
    def load() -> SleepyEngine:
        raise failure

    thread = EngineThread(load, Scheduler(8, 100, 4))
    thread.start()
    assert thread.loaded.wait(SOON)
    assert message in str(thread.failure)
    assert thread.info is None
    assert ended(thread)


def test_engine_that_loads_after_it_was_given_up_is_not_served() -> None:
    release = threading.Event()

    def load() -> SleepyEngine:
        release.wait(SOON)
        return SleepyEngine()

    thread = EngineThread(load, Scheduler(8, 100, 4))
    thread.start()
    thread.give_up(StartupError("too late"))
    assert thread.loaded.is_set()
    release.set()
    assert ended(thread)
    assert thread.info is None
    assert str(thread.failure) == "too late"


def test_step_that_hangs_is_reported_as_a_stall() -> None:
    hanging, release = threading.Event(), threading.Event()

    def hang() -> None:
        hanging.set()
        release.wait(SOON)

    thread = started(SleepyEngine(on_step=hang))
    assert thread.stalled_for == 0
    thread.submit([ticket()])
    assert hanging.wait(SOON)
    assert thread.stalled_for > 0
    assert thread.active == 1
    release.set()
    assert ended(thread)
    assert thread.stalled_for == 0


def test_bug_in_the_scheduler_fails_its_forecasts_and_the_thread_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bugs = [ZeroDivisionError()]
    advance = Scheduler.advance

    def buggy(self: Scheduler, *args: object) -> None:
        if bugs:
            raise bugs.pop()
        advance(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Scheduler, "advance", buggy)
    thread = started(SleepyEngine())
    first, second = ticket(), ticket()
    thread.submit([first])
    assert isinstance(first.future.exception(SOON), InternalError)
    thread.submit([second])
    assert second.future.result(SOON).values is not None
    assert ended(thread)


def test_freed_memory_is_returned_once_the_engine_has_been_idle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    returned, freed = threading.Semaphore(0), threading.Semaphore(0)
    monkeypatch.setattr(engine_thread, "RETURN_IDLE", 0.01)
    monkeypatch.setattr(SleepyEngine, "free_unused_memory", lambda _: freed.release())
    monkeypatch.setattr(engine_thread, "return_freed_memory", returned.release)
    thread = started(SleepyEngine())
    assert returned.acquire(timeout=SOON)
    one = ticket()
    thread.submit([one])
    assert one.future.result(SOON).values is not None
    assert returned.acquire(timeout=SOON)
    assert ended(thread)
    assert not returned.acquire(blocking=False)
    assert [freed.acquire(blocking=False) for _ in range(3)] == [True, True, False]
