"""The master: failed forks, hanging workers, a service without a serving worker."""

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
from kronos_api.server.application import Application
from kronos_api.server.arbiter import MAX_PAUSE, START_MARGIN, Arbiter
from kronos_api.server.exit import NOT_STARTED
from kronos_api.server.heartbeats import CHECK_SECONDS, AwakeClock
from kronos_api.server.worker_status import Command, Status, WorkerStatus


@pytest.fixture
def arbiter(monkeypatch: pytest.MonkeyPatch) -> Iterator[Arbiter]:
    def no_room(_: GunicornArbiter) -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(GunicornArbiter, "spawn_worker", no_room)
    application = Application(Starlette, {"workers": 2}, bind("127.0.0.1", 0))
    yield Arbiter(application)
    application.listener.close()


def test_failed_fork_of_the_first_worker_ends_the_master(arbiter: Arbiter) -> None:
    with pytest.raises(HaltServer, match="Resource temporarily unavailable"):
        arbiter.manage_workers()


def test_failed_forks_are_retried_after_growing_pauses(arbiter: Arbiter) -> None:
    arbiter._youngest = 1  # one has served
    with structlog.testing.capture_logs() as lines:
        for _ in range(1100):
            arbiter._not_before = 0
            arbiter.manage_workers()
        arbiter.manage_workers()  # not yet
    pauses = [line["next_try_seconds"] for line in lines]
    assert pauses[:7] == [1, 2, 4, 8, 16, 32, MAX_PAUSE]
    assert set(pauses[7:]) == {MAX_PAUSE}
    assert len(pauses) == 1100


class Master:
    """An arbiter whose clock and workers are the test's."""

    def __init__(self, arbiter: Arbiter) -> None:
        self.arbiter = arbiter
        self.now = 0.0
        self.sent: list[tuple[int, int]] = []
        arbiter._clock = AwakeClock(lambda: self.now)
        arbiter._not_before = float("inf")  # no worker is started

    def add(self, pid: int, status: Status) -> Any:
        shared = WorkerStatus()
        shared.status = status
        worker = SimpleNamespace(
            pid=pid, age=pid, shared=shared, aborted=False, beat=0.0, died=status > 0
        )
        worker.tmp = SimpleNamespace(last_update=lambda: worker.beat)
        self.arbiter._workers[pid] = worker  # type: ignore[assignment]
        return worker

    def go_on(self, seconds: float, *beating: Any) -> None:
        for _ in range(round(seconds / CHECK_SECONDS)):
            self.now += CHECK_SECONDS
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
    beating = master.add(1, Status.READY)
    master.add(2, Status.READY)
    master.go_on(8, beating)
    assert master.sent == []
    with structlog.testing.capture_logs() as lines:
        master.go_on(3 * CHECK_SECONDS, beating)
    assert master.sent[:2] == [(2, signal.SIGABRT), (2, signal.SIGKILL)]
    assert [line["event"] for line in lines] == ["worker_timeout"]
    assert lines[0]["setting"] == "GUNICORN_TIMEOUT"


def test_after_a_pause_of_all_processes_no_worker_is_killed(master: Master) -> None:
    workers = [master.add(pid, Status.READY) for pid in (1, 2)]
    master.go_on(2, *workers)
    master.now += 3600
    master.go_on(2)  # the master runs first
    master.go_on(60, *workers)
    assert master.sent == []


def test_starting_worker_needs_no_heartbeat_until_the_startup_timeout(master: Master) -> None:
    serving, _ = master.add(1, Status.READY), master.add(2, Status.STARTING)
    timeout = master.arbiter._startup_timeout + START_MARGIN
    master.go_on(timeout, serving)
    assert master.sent == []
    master.go_on(2 * CHECK_SECONDS, serving)
    assert set(master.sent) == {(2, signal.SIGKILL)}


def test_master_without_a_serving_worker_ends_with_status_3(master: Master) -> None:
    worker = master.add(1, Status.READY)
    master.go_on(10, worker)
    del master.arbiter._workers[1]
    limit = master.arbiter._startup_timeout + START_MARGIN
    master.go_on(limit)
    with pytest.raises(HaltServer, match="no worker has served for KRONOS_STARTUP_TIMEOUT") as end:
        master.go_on(2 * CHECK_SECONDS)
    assert end.value.exit_status == NOT_STARTED


def test_stalled_worker_is_retired_at_once(master: Master) -> None:
    stalled = master.add(1, Status.STALLED)
    master.go_on(CHECK_SECONDS, stalled)
    assert stalled.shared.command is Command.RETIRE
    assert master.sent == [(1, signal.SIGTERM)]


@pytest.mark.parametrize(
    ("status", "died", "event"),
    [
        (Status.READY, True, "worker_died"),
        (Status.RECYCLE_REQUESTED, True, "worker_died"),
        (Status.STOPPED, False, "worker_stopped"),
    ],
)
def test_worker_that_has_not_reported_its_stop_has_died(
    master: Master, status: Status, died: bool, event: str
) -> None:
    worker = master.add(1, status)
    worker.died = died
    with structlog.testing.capture_logs() as lines:
        master.arbiter._ended(1, worker)
    assert [line["event"] for line in lines] == [event]
