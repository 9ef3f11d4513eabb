"""Load on a service: forecasts that arrive at a rate, whatever the service answers.

    locust -f tests/load/locustfile.py --headless --host URL --load burst --html report.html

Arrivals are those of many independent callers: each simulated user sends its requests at random
times with exponential gaps, and no later than due because an earlier response was slow, as long as
responses come within `PATIENCE`. One request of ten is a batch. A refusal, 429 or 503, is an answer
of a service that protects itself: refusals have rows and a count of their own, and are not among
the latencies. Every other status than 200 is a failure, and makes the exit status 1.
"""

from __future__ import annotations

import json
import math
import random
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar, Final

from locust import FastHttpUser, LoadTestShape, events, tag, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment

LOADS: Final = {"steady": (10.0, 300.0), "burst": (100.0, 60.0), "sustained": (50.0, 600.0)}
"""Requests a second, and for how many seconds."""
PATIENCE: Final = 10.0
"""Seconds between two requests of a user, on average; slower responses delay its next request."""
TIMEOUT: Final = 120.0
"""Seconds that a caller waits for a response."""
REFUSALS: Final = (429, 503)
BATCH: Final = 4
"""Series of a batch."""


@events.init_command_line_parser.add_listener
def add_options(parser: LocustArgumentParser) -> None:
    """The options of this file; each has an environment variable, too."""
    add = parser.add_argument
    add("--load", choices=list(LOADS), default="steady", env_var="LOAD", help="rate and duration")
    add("--rate", type=float, env_var="LOAD_RATE", help="requests a second instead of the load's")
    add("--seconds", type=float, env_var="LOAD_SECONDS", help="duration instead of the load's")
    add("--history", type=int, default=400, env_var="LOAD_HISTORY", help="candles of a series")
    add("--horizon", type=int, default=24, env_var="LOAD_HORIZON", help="candles to forecast")
    add("--keys", env_var="LOAD_KEYS", help="file of API keys: the last word of each line is one")


@events.init.add_listener
def wait_for_responses(environment: Environment, **_: Any) -> None:
    """At the end, wait for requests in progress instead of cutting them off uncounted."""
    environment.stop_timeout = environment.stop_timeout or TIMEOUT


def options_of(environment: Environment) -> Namespace:
    """The options of this run."""
    options: Namespace | None = environment.parsed_options
    assert options is not None
    return options


def load_of(environment: Environment) -> tuple[float, float]:
    """Requests a second and seconds of the load that the options name."""
    options = options_of(environment)
    rate, seconds = LOADS[options.load]
    return options.rate or rate, options.seconds or seconds


def keys_of(options: Namespace) -> list[str]:
    """The API keys that callers have; empty without a file."""
    lines = Path(options.keys).read_text("utf-8").splitlines() if options.keys else []
    return [line.split()[-1] for line in lines if line.strip()]


def series(seed: int, history: int, horizon: int) -> dict[str, Any]:
    """The request for a random walk of hourly candles."""
    source, closes = random.Random(seed), [100.0]
    for _ in range(history):
        closes.append(closes[-1] * math.exp(source.gauss(0, 0.01)))
    opens, closes = closes[:-1], closes[1:]
    both = list(zip(opens, closes, strict=True))
    begin = datetime(2025, 1, 1, tzinfo=UTC)
    return {
        "series_id": f"walk-{seed}",
        "candles": {
            "open": opens,
            "high": [max(pair) * 1.002 for pair in both],
            "low": [min(pair) * 0.998 for pair in both],
            "close": closes,
            "volume": [source.uniform(1e3, 1e4) for _ in both],
        },
        "timestamps": [(begin + timedelta(hours=hour)).isoformat() for hour in range(history)],
        "horizon": horizon,
        "freq": "1h",
    }


def refusal(status: int, body: str) -> str:
    """Name of the row of a refusal: its status and, if the service sent it, its error code."""
    with suppress(ValueError, KeyError, TypeError):
        return f"refused: {status} {json.loads(body)['error']['code']}"
    return f"refused: {status}"


class Load(LoadTestShape):
    """All users at once, until the time is over."""

    def tick(self) -> tuple[int, float] | None:
        """Number of users and how many start a second; None ends the run."""
        assert self.runner is not None
        rate, seconds = load_of(self.runner.environment)
        users = math.ceil(rate * PATIENCE)
        return (users, users) if self.get_run_time() < seconds else None


class Caller(FastHttpUser):
    """Sends one request after the other; users with the same API key are one caller."""

    started: ClassVar[int] = 0
    bodies: ClassVar[list[dict[str, Any]]] = []
    network_timeout = connection_timeout = TIMEOUT

    def on_start(self) -> None:
        """Take the next key, and wait for the first arrival."""
        options = options_of(self.environment)
        if not Caller.bodies:
            made = (series(seed, options.history, options.horizon) for seed in range(8))
            Caller.bodies.extend(made)
        keys, Caller.started = keys_of(options), Caller.started + 1
        if keys:
            key = keys[Caller.started % len(keys)]
            self.client.auth_header = f"Bearer {key}"
        self._rate, _ = load_of(self.environment)
        self._arrivals = self._poisson()
        time.sleep(self.wait_time())

    def wait_time(self) -> float:
        """Seconds until the next request is due."""
        return max(0.0, next(self._arrivals) - time.perf_counter())

    @tag("single")
    @task(9)
    def single(self) -> None:
        """Forecast one series."""
        self._post("single", random.choice(self.bodies))

    @tag("batch")
    @task(1)
    def batch(self) -> None:
        """Forecast several series in one request."""
        self._post("batch", {"items": random.sample(self.bodies, BATCH)})

    def _poisson(self) -> Iterator[float]:
        """Times of the arrivals of this user, a share of a Poisson process."""
        users = math.ceil(self._rate * PATIENCE)
        due = time.perf_counter()
        while True:
            due += random.expovariate(self._rate / users)
            yield due

    def _post(self, name: str, body: dict[str, Any]) -> None:
        path = f"/v1/predict/{name}"
        with self.client.post(path, json=body, name=name, catch_response=True) as response:
            if response.status_code in REFUSALS:
                response.request_meta["name"] = refusal(response.status_code, response.text or "")
                response.success()


@events.quitting.add_listener
def print_counts(environment: Environment, **_: Any) -> None:
    """Print what was answered, refused and failed."""
    rows = {name: entry for (name, _method), entry in environment.stats.entries.items()}
    for name in ("single", "batch"):
        if entry := rows.pop(name, None):
            shown = (entry.get_response_time_percentile(part) / 1e3 for part in (0.5, 0.95, 0.99))
            times = ", ".join(f"{seconds:.2f}" for seconds in shown)
            answered = entry.num_requests - entry.num_failures
            print(f"{name}: {answered} answered; p50, p95, p99: {times} s")  # noqa: T201
    refused = ", ".join(f"{entry.num_requests} {name}" for name, entry in sorted(rows.items()))
    print(f"{refused or 'none refused'}; {environment.stats.total.num_failures} failed")  # noqa: T201
