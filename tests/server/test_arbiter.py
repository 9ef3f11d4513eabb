"""The master when the system has no room for a process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog
from gunicorn.arbiter import Arbiter as GunicornArbiter
from gunicorn.errors import HaltServer
from starlette.applications import Starlette

from kronos_api.cli.serve import bind
from kronos_api.server.arbiter import LONGEST_PAUSE, Application, Arbiter


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
