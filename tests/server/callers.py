"""Callers that keep their connections alive and retry nothing: every failure is counted."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException

from tests.web import JSON, SINGLE, body, encode

FORECAST = encode(body(4, horizon=1))


class Callers:
    """Some callers at once, each on a connection of its own, until `stop`."""

    def __init__(self, port: int, count: int) -> None:
        self.answers: Counter[int] = Counter()
        self.failures: list[str] = []
        self.last_answers = 0
        """Responses with `Connection: close`."""
        self._port = port
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._call, args=(n,)) for n in range(count)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join(90)
            assert not thread.is_alive()

    @property
    def total(self) -> int:
        return sum(self.answers.values())

    def _call(self, number: int) -> None:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=60)
        asked = number
        while not self._done.is_set():
            asked += 1
            try:
                if asked % 4:
                    connection.request("GET", "/v1/readyz")
                else:
                    connection.request("POST", SINGLE, FORECAST, JSON)
                answer = connection.getresponse()
                answer.read()
            except (OSError, HTTPException) as error:
                with self._lock:
                    self.failures.append(f"{type(error).__name__}: {error}")
                connection.close()
                continue
            with self._lock:
                self.answers[answer.status] += 1
                self.last_answers += answer.getheader("connection") == "close"
        connection.close()


@contextmanager
def calling(port: int, count: int) -> Iterator[Callers]:
    """Callers that call all the while."""
    callers = Callers(port, count)
    callers.start()
    try:
        yield callers
    finally:
        callers.stop()
