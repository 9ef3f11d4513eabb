"""The master: no room for a process, workers that hang, a service that no worker serves."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from gunicorn.arbiter import Arbiter as GunicornArbiter
from gunicorn.errors import HaltServer
from starlette.applications import Starlette

from kronos_api.cli.serve import bind
from kronos_api.server.arbiter import LONGEST_PAUSE, START_MARGIN, Application, Arbiter
from kronos_api.server.heartbeats import LOOK, AwakeClock
from kronos_api.server.server import NOT_STARTED
from kronos_api.server.worker_status import Condition, Order, Page


@pytest.fixture
def arbiter(monkeypatch: pytest.MonkeyPatch) -> Iterator[Arbiter]:
    def no_room(_: GunicornArbiter) -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(GunicornArbiter, "spawn_worker", no_room)
    application = Application(Starlette, {"workers": 2}, bind("127.0.0.1", 0))
    yield Arbiter(application)
    application.listener.close()


def test_without_a_first_worker_it_ends(arbiter: Arbiter) -> None:
    with pytest.raises(HaltServer, match="Resource temporarily unavailable"):
        arbiter.manage_workers()


def test_later_it_tries_again_however_often(arbiter: Arbiter) -> None:
    arbiter._youngest = 1  # one has served
    with structlog.testing.capture_logs() as lines:
        for _ in range(1100):
            arbiter._not_before = 0
            arbiter.manage_workers()
        arbiter.manage_workers()  # not yet
    pauses = [line["next_try_seconds"] for line in lines]
    assert pauses[:7] == [1, 2, 4, 8, 16, 32, LONGEST_PAUSE]
    assert set(pauses[7:]) == {LONGEST_PAUSE}
    assert len(pauses) == 1100


class Master:
    """An arbiter whose clock and workers are the test's."""

    def __init__(self, arbiter: Arbiter) -> None:
        self.arbiter = arbiter
        self.now = 0.0
        self.sent: list[tuple[int, int]] = []
        arbiter._clock = AwakeClock(lambda: self.now)
        arbiter._not_before = float("inf")  # no worker is started

    def add(self, pid: int, condition: Condition) -> Any:
        page = Page()
        page.condition = condition
        worker = SimpleNamespace(
            pid=pid, age=pid, page=page, aborted=False, beat=0.0, died=condition > 0
        )
        worker.tmp = SimpleNamespace(last_update=lambda: worker.beat)
        self.arbiter._workers[pid] = worker  # type: ignore[assignment]
        return worker

    def go_on(self, seconds: float, *beating: Any) -> None:
        for _ in range(round(seconds / LOOK)):
            self.now += LOOK
            for worker in beating:
                worker.beat = self.now
            self.arbiter.murder_workers()
            self.arbiter.manage_workers()


@pytest.fixture
def master(arbiter: Arbiter, monkeypatch: pytest.MonkeyPatch) -> Master:
    master = Master(arbiter)
    arbiter.timeout = 8
    monkeypatch.setattr(
        GunicornArbiter, "kill_worker", lambda _, pid, sig: master.sent.append((pid, sig))
    )
    return master


def test_a_worker_without_heartbeats_is_killed(master: Master) -> None:
    beating = master.add(1, Condition.READY)
    master.add(2, Condition.READY)
    master.go_on(8, beating)
    assert master.sent == []
    with structlog.testing.capture_logs() as lines:
        master.go_on(3 * LOOK, beating)
    assert master.sent[:2] == [(2, signal.SIGABRT), (2, signal.SIGKILL)]
    assert [line["event"] for line in lines] == ["worker_timeout"]
    assert lines[0]["setting"] == "GUNICORN_TIMEOUT"


def test_after_a_pause_of_all_processes_no_worker_is_killed(master: Master) -> None:
    workers = [master.add(pid, Condition.READY) for pid in (1, 2)]
    master.go_on(2, *workers)
    master.now += 3600
    master.go_on(2)  # the master runs first
    master.go_on(60, *workers)
    assert master.sent == []


def test_a_worker_that_starts_may_be_silent_until_the_start_up_timeout(master: Master) -> None:
    serving, _ = master.add(1, Condition.READY), master.add(2, Condition.STARTING)
    timeout = master.arbiter._startup_timeout + START_MARGIN
    master.go_on(timeout, serving)
    assert master.sent == []
    master.go_on(2 * LOOK, serving)
    assert set(master.sent) == {(2, signal.SIGKILL)}


def test_without_a_serving_worker_it_ends_with_a_status(master: Master) -> None:
    worker = master.add(1, Condition.READY)
    master.go_on(10, worker)
    del master.arbiter._workers[1]
    limit = master.arbiter._startup_timeout + START_MARGIN
    master.go_on(limit)
    with pytest.raises(HaltServer, match="no worker has served for KRONOS_STARTUP_TIMEOUT") as end:
        master.go_on(2 * LOOK)
    assert end.value.exit_status == NOT_STARTED


def test_a_stalled_worker_is_told_to_make_way_at_once(master: Master) -> None:
    stalled = master.add(1, Condition.STALLED)
    master.go_on(LOOK, stalled)
    assert stalled.page.order is Order.MAKE_WAY
    assert master.sent == [(1, signal.SIGTERM)]


@pytest.mark.parametrize(
    ("condition", "died", "told"),
    [
        (Condition.READY, True, "worker died"),
        (Condition.WORN, True, "worker died"),
        (Condition.ENDED, False, "worker ended"),
    ],
)
def test_only_a_worker_that_did_not_stop_in_order_has_died(
    master: Master, condition: Condition, died: bool, told: str
) -> None:
    worker = master.add(1, condition)
    worker.died = died
    with structlog.testing.capture_logs() as lines:
        master.arbiter._ended(1, worker)
    assert [line["event"] for line in lines] == [told]
