"""Forecasts spread evenly over workers, whether callers keep their connections or not."""

from __future__ import annotations

import json
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from http.client import HTTPConnection

import pytest

from tests.processes import Service, services, until
from tests.web import JSON, SINGLE, body, encode

pytestmark = pytest.mark.process

SERVE = (sys.executable, "-m", "tests.paced_service", "0.05", "serve")
ROUNDS = 5


class Caller:
    """Requests forecasts of half a second, one after the other."""

    def __init__(self, port: int, *, keeps: bool) -> None:
        self.workers: list[str] = []
        """The worker of each forecast."""
        self.new_connections = 0
        self._keeps = keeps
        self._connection = HTTPConnection("127.0.0.1", port, timeout=60)

    def forecast(self) -> str:
        """The worker that made one forecast."""
        if self._connection.sock is None:
            self.new_connections += 1
        self._connection.request("POST", SINGLE, encode(body(4, horizon=10)), JSON)
        response = self._connection.getresponse()
        answer = json.loads(response.read())
        assert response.status == 200, answer
        if not self._keeps:
            self._connection.close()
        worker: str = answer["model_version"].partition("@")[2]
        self.workers.append(worker)
        return worker

    def close(self) -> None:
        self._connection.close()


def together(callers: list[Caller], rounds: int = 1) -> None:
    """Let all `callers` request `rounds` forecasts, each at its own pace."""

    def call(caller: Caller) -> None:
        for _ in range(rounds):
            caller.forecast()

    threads = [threading.Thread(target=call, args=(caller,)) for caller in callers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("balance")
    settings = {"RATE_LIMIT_ENABLED": "false", "GUNICORN_KEEPALIVE": "60"}
    with services(folder, 1, 2, command=SERVE, **settings) as (running,):
        yield running


@pytest.mark.parametrize("keeps", [True, False], ids=["kept connections", "new connections"])
def test_twenty_callers_are_spread_evenly_over_two_workers(service: Service, keeps: bool) -> None:
    callers = [Caller(service.port, keeps=keeps) for _ in range(20)]
    together(callers, ROUNDS)
    for caller in callers:
        caller.close()
    for number in range(ROUNDS):  # the callers are about in step
        by_worker = Counter(caller.workers[number] for caller in callers)
        assert len(by_worker) == 2
        assert min(by_worker.values()) >= 0.25 * by_worker.total()
    by_worker = Counter(worker for caller in callers for worker in caller.workers)
    assert min(by_worker.values()) >= 0.4 * by_worker.total()


def test_callers_that_kept_connections_to_one_worker_move_to_an_idle_one(service: Service) -> None:
    callers = [Caller(service.port, keeps=True) for _ in range(12)]
    together(callers)
    first = callers[0].workers[0]
    pinned = [caller for caller in callers if caller.workers[0] == first][:6]
    together(pinned)  # the responses close the connections

    def moved() -> bool:
        """Also where the threads of the callers start so late that some respond before."""
        together(pinned)
        now = Counter(caller.workers[-1] for caller in pinned)
        return len(now) == 2 and min(now.values()) >= len(pinned) // 2 - 1

    until(moved, 30)
    for caller in callers:
        caller.close()
