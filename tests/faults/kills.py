"""A worker is killed every five seconds under load: counters never fall, little is lost."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final

from prometheus_client.parser import text_string_to_metric_families

from tests.faults.figures import Figure
from tests.processes import OPENER, Service, services
from tests.server.callers import calling

KILLS: Final = {False: 2, True: 60}
EVERY: Final = 5.0
CALLERS: Final = 4
COUNTERS: Final = ("_total", "_count", "_sum", "_bucket")


def counters(service: Service) -> dict[str, float]:
    """All series that may only grow."""
    with OPENER.open(service.url + "/metrics", timeout=30) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    return {
        f"{one.name}{sorted(one.labels.items())}": one.value
        for family in families
        for one in family.samples
        if one.name.endswith(COUNTERS)
    }


def measure(*, long: bool) -> list[Figure]:
    """Requests lost, and series that went back."""
    settings: dict[str, Any] = {
        "RATE_LIMIT_PER_MINUTE": "10000000",
        "RATE_LIMIT_OTHER_PER_MINUTE": "10000000",
    }
    back: set[str] = set()
    kills = KILLS[long]
    with (
        tempfile.TemporaryDirectory() as folder,
        services(Path(folder), workers=2, **settings) as (service,),
        calling(service.port, CALLERS) as callers,
    ):
        before = counters(service)
        for number in range(1, kills + 1):
            due = time.monotonic() + EVERY
            os.kill(min(service.workers()), signal.SIGKILL)
            # Later on a slow machine: with both workers gone no request could be answered.
            service.wait_for("worker_died", number)
            service.wait_for("listening", 2 + number)
            try:
                now = counters(service)
            except (OSError, HTTPException):  # the worker that was killed had this request
                now = counters(service)
            back |= {name for name, value in before.items() if now.get(name, 0) < value}
            before = now
            time.sleep(max(0.0, due - time.monotonic()))
    statuses = callers.answers
    return [
        Figure("kills", kills),
        Figure("responses", callers.total),
        Figure("lost requests", len(callers.failures), kills * CALLERS),
        Figure("responses other than 200", callers.total - statuses[200], 0),
        Figure("counters that went back", len(back), 0),
    ]
