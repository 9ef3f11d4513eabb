"""Many requests from inside a container, over connections that are kept as long as they may be.

Run by bare Python: a task as JSON on standard input, what became of it on standard output. Ends
when `requests` were made or `seconds` have passed.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from http.client import HTTPConnection, HTTPException
from itertools import count
from typing import Any

LIGHT = "/v1/models"
FORECAST = "/v1/predict/single"
FORECAST_EVERY = 4
"""Of so many requests one is a forecast; the others are light."""


class Hammer:
    """Requests by several threads, each with a connection of its own."""

    def __init__(self, task: dict[str, Any]) -> None:
        self.host = str(task["host"])
        self.body = json.dumps(task["body"])
        self.requests = int(task.get("requests", 10**9))
        self.until = time.monotonic() + float(task.get("seconds", 10**9))
        self.numbers = count()
        self.answers: Counter[str] = Counter()
        self.lost: list[str] = []
        self.lock = threading.Lock()

    def run(self, connections: int) -> dict[str, Any]:
        """Number of answers by status and code, and what became of requests without an answer."""
        threads = [threading.Thread(target=self.knock) for _ in range(connections)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return {"answers": self.answers, "lost": self.lost}

    def knock(self) -> None:
        """One thread's requests."""
        link = HTTPConnection(self.host, timeout=90)
        while (number := next(self.numbers)) < self.requests and time.monotonic() < self.until:
            try:
                if number % FORECAST_EVERY == 0:
                    headers = {"Content-Type": "application/json"}
                    link.request("POST", FORECAST, self.body, headers)
                else:
                    link.request("GET", LIGHT)
                answer = link.getresponse()
                text = answer.read()
            except (OSError, HTTPException) as error:
                link.close()
                with self.lock:
                    self.lost.append(repr(error))
            else:
                told = str(answer.status)
                if answer.status != 200:
                    told += f" {code_of(text)}"
                with self.lock:
                    self.answers[told] += 1
        link.close()


def code_of(text: bytes) -> str:
    """The error code of a response, or its beginning if it is not in the shape of errors."""
    try:
        return str(json.loads(text)["error"]["code"])
    except (ValueError, KeyError, TypeError):
        return repr(text[:200])


task = json.load(sys.stdin)
json.dump(Hammer(task).run(task["connections"]), sys.stdout)
