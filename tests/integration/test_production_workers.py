"""Workers are recycled or killed inside one container under load."""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.integration.conftest import Images
from tests.integration.rolling import FORECAST
from tests.integration.stack import Caller, Stack, caller, docker, running, until

log = logging.getLogger(__name__)

pytestmark = pytest.mark.docker

HAMMER: Final = (Path(__file__).parent / "hammer.py").read_text("utf-8")
CONNECTIONS: Final = 6
REQUESTS: Final = 4_000
"""Enough for each worker to be replaced several times; how often depends on how fast one starts."""
KILL_EVERY: Final = 5.0
KILLS: Final = 4
NEVER_LOWER: Final = re.compile(r"^(\S+_(?:total|count|sum|bucket)(?:\{.*\})?) (\S+)$", re.M)

# What is a worker: a child of the container's first process, the master, or of what stands there.
WORKERS: Final = """
import json, psutil
# What has ended meanwhile is passed over.
found = [process.info for process in psutil.process_iter(["pid", "ppid", "cmdline"])]
ours = [one for one in found if "kronos-api" in " ".join(one["cmdline"] or [])]
pids = {one["pid"] for one in ours}
print(json.dumps(sorted(one["pid"] for one in ours if one["ppid"] in pids)))
"""


@contextmanager
def two_workers(images: Images, **more: str) -> Iterator[tuple[str, Caller]]:
    """A container of the service that has two workers, and one that may call it."""
    settings = {
        # By address: on a machine that is busy with all this, DNS may not answer in its time.
        "KRONOS_CONTAINER_WHITELIST": "10.0.0.0/8",
        "KRONOS_TRUSTED_PROXIES": "192.0.2.1",
        "KRONOS_RATE_LIMIT_PER_MINUTE": "1000000",
        "KRONOS_RATE_LIMIT_OTHER_PER_MINUTE": "1000000",
        "KRONOS_TORCH_THREADS": "1",
        "GUNICORN_WORKERS": "2",
        # A caller that this machine holds up is no slow caller.
        "GUNICORN_KEEPALIVE": "60",
        "KRONOS_HEADER_TIMEOUT": "60",
        "KRONOS_BODY_TIMEOUT": "60",
    }
    with (
        running(Stack(images.production, settings | more)) as stack,
        caller(stack.network) as sibling,
    ):
        (container,) = stack.containers()
        until(lambda: complete(container), 120, "two workers serve")
        yield container, sibling


def hammer(sibling: Caller, **task: Any) -> dict[str, Any]:
    """What became of the requests that hammer.py makes."""
    text = json.dumps(
        {"host": "kronos-api:8000", "body": FORECAST, "connections": CONNECTIONS} | task
    )
    command = ("exec", "-i", sibling.container, "python", "-c", HAMMER)
    return dict(json.loads(docker(*command, text=text, timeout=900)))


def workers(container: str) -> list[int]:
    """Process ids of the workers, as the container knows them."""
    return list(json.loads(docker("exec", container, "python", "-c", WORKERS)))


def told(container: str, event: str) -> int:
    """How often the service has logged that."""
    return docker("logs", container).count(f'"event": "{event}"')


def complete(container: str, kills: int = 0) -> bool:
    """Whether two workers listen, and have loaded the model, after `kills` of others."""
    return told(container, "worker_died") == kills and told(container, "listening") == 2 + kills


def counters(sibling: Caller) -> dict[str, float]:
    """All that may only grow."""
    for _ in range(3):
        answer = sibling.ask("/metrics")
        if answer.status:
            break  # else a worker that was being killed took it
    assert answer.status == 200, answer
    return {name: float(value) for name, value in NEVER_LOWER.findall(str(answer.body))}


def asked(sibling: Caller) -> float:
    """Requests that are counted, but for those that ask for the counts."""
    return sum(
        value
        for name, value in counters(sibling).items()
        if name.startswith("kronos_requests_total") and ("models" in name or "single" in name)
    )


def test_recycled_workers_lose_no_request(images: Images) -> None:
    limits = {"GUNICORN_MAX_REQUESTS": "50", "GUNICORN_MAX_REQUESTS_JITTER": "10"}
    with two_workers(images, **limits) as (container, sibling):
        before = set(workers(container))
        found = hammer(sibling, requests=REQUESTS)
        assert found["lost"] == []
        assert found["answers"] == {"200": REQUESTS}
        assert told(container, "worker_retired") >= 2
        assert not before & set(workers(container))
        # Every request is counted, by whichever worker.
        until(lambda: asked(sibling) == REQUESTS, 60, f"{REQUESTS} requests are counted")


def test_workers_ended_by_pkill_are_replaced(images: Images) -> None:
    with two_workers(images) as (container, sibling):
        before = set(workers(container))
        docker("exec", container, "pkill", "-f", "gunicorn: worker")
        until(lambda: told(container, "worker_stopped") == 2, 120, "both workers are replaced")
        assert len(set(workers(container)) - before) == 2
        assert told(container, "worker_died") == 0
        assert sibling.ask("/v1/readyz").status == 200
        assert counters(sibling)["kronos_worker_deaths_total"] == 0


def test_killed_workers_lose_only_their_own_requests(images: Images) -> None:
    found: dict[str, Any] = {}
    with two_workers(images) as (container, sibling):
        calling = threading.Thread(
            target=lambda: found.update(hammer(sibling, seconds=(KILLS + 1) * KILL_EVERY))
        )
        calling.start()
        highest = counters(sibling)
        for kills in range(1, KILLS + 1):
            pids = workers(container)
            docker("exec", container, "sh", "-c", f"kill -9 {pids[kills % len(pids)]}")
            again = time.monotonic() + KILL_EVERY
            # Later on a slow machine: with both workers gone no request could be answered.
            while time.monotonic() < again or not complete(container, kills):
                assert time.monotonic() < again + 120, docker("logs", "--tail", "50", container)
                now = counters(sibling)
                assert {n: (v, now.get(n)) for n, v in highest.items() if now.get(n, 0) < v} == {}
                highest = now
                time.sleep(0.5)
        calling.join(120)
        assert docker("inspect", "--format", "{{.RestartCount}}", container) == "0"
    log.info("%d kills, %s, %d without an answer", KILLS, found["answers"], len(found["lost"]))
    assert set(found["answers"]) == {"200"}
    # Each connection has at most one request in flight.
    assert len(found["lost"]) <= KILLS * CONNECTIONS, found["lost"]
    assert found["answers"]["200"] > 10 * len(found["lost"])
