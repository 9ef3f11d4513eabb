"""What one replica carries, and the replicas and machines that more callers need.

    python -m benchmarks.carry --shapes mini small --dtypes float32 int8
    python -m benchmarks.carry --url https://forecasts.example.com
    python -m benchmarks.carry --carried 6.5 --core-hour 0.04

Requests arrive as those of many independent callers: at random times (Poisson) and whether or not
earlier ones have been answered. The search halves the gap between a rate at which the 95th
percentile of the latency stays below --limit seconds, and one at which it does not or a request is
refused or fails. The second table has what a rate of requests needs: replicas by what one carries,
with a twentieth of them, and at least one, to spare for updates and failures, and their cores and
machines. `--carried` skips the measurement.
"""

from __future__ import annotations

import argparse
import math
import random
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.crowd import Crowd, Row
from benchmarks.report import parser, print_row, processor, write_json
from benchmarks.service import service
from tests.oracle import make_oracle

RATES: Final = (10.0, 50.0, 100.0, 500.0, 5000.0)
"""Requests a second to plan for."""
CALLERS: Final = 16
"""Callers that saturate the service, for a first estimate."""
ABOVE: Final = 1.2
"""The search starts between 0 and this times the saturated rate."""
PATIENCE: Final = 10.0
"""Seconds that responses can take before there are too few senders, and arrivals are late."""
HEADINGS: Final = ("offered/s", "answered/s", "p50", "p95", "p99", "refused", "failed", "holds")
WIDTHS: Final = (9, 11, 7, 7, 7, 8, 7, 6)
SPARE: Final = 0.05
"""Replicas to spare, as a share of those that carry the requests; at least one."""
RESERVED_CORES: Final = 2
"""Cores of a machine that replicas leave to the system, the gateway and the monitoring."""
PLAN_HEADINGS: Final = ("requests/s", "replicas", "cores", "machines", "cost a month")
PLAN_WIDTHS: Final = (11, 9, 7, 9, 13)
HOURS: Final = 730
"""Hours of a month."""


class Arrivals(Crowd):
    """Requests at the times of a Poisson process, each on a connection of its own."""

    def __init__(self, url: str, options: argparse.Namespace) -> None:
        super().__init__(url, options)
        self.wait = lambda _: None  # the next request is another caller's
        self._due: Iterator[float] = iter(())

    def offer(self, rate: float, seconds: float) -> Row:
        """Send `rate` requests a second for so many seconds, and wait for the responses."""
        source, times = random.Random(0), [0.0]
        while times[-1] < seconds:
            times.append(times[-1] + source.expovariate(rate))
        begin = time.perf_counter() + 0.2  # once the threads run
        self._due = iter([begin + at for at in times])
        return self.measure(min(len(times), math.ceil(rate * PATIENCE)), len(times))

    def _shares(self) -> Iterator[None]:
        """Take one arrival after the other, and wait for its time."""
        while True:
            with self._lock:
                due = next(self._due, None)
            if due is None:
                return
            time.sleep(max(0.0, due - time.perf_counter()))
            yield


@dataclass(frozen=True, slots=True)
class Need:
    """What a rate of requests needs."""

    rate: float
    replicas: int
    cores: int
    machines: int

    def cost(self, core_hour: float) -> float:
        """Cost of the replicas' cores for a month."""
        return self.cores * core_hour * HOURS


def need(rate: float, carried: float, cores: int = 2, machine: int = 32) -> Need:
    """Replicas and machines for `rate` requests a second.

    `carried` is the rate of one replica of so many `cores`; `machine`, the cores of a machine.
    """
    busy = math.ceil(rate / carried)
    replicas = busy + max(1, math.ceil(busy * SPARE))
    fitting = max(1, (machine - RESERVED_CORES) // cores)
    return Need(rate, replicas, replicas * cores, math.ceil(replicas / fitting))


def carried_rate(url: str, options: argparse.Namespace) -> tuple[float, list[Row]]:
    """The highest rate that held the limit, 0 if none did, and all rows that were measured.

    Raises:
        SystemExit: no request was answered.
    """
    crowd, arrivals = Crowd(url, options), Arrivals(url, options)
    crowd.measure(1, 2)  # warm-up
    saturated = crowd.measure(CALLERS, 3 * CALLERS).rate
    if not saturated:
        raise SystemExit(f"{url}: no request was answered; is this machine listed there?")
    held, missed = 0.0, ABOVE * saturated
    print_row(HEADINGS, WIDTHS)
    rows = []
    for _ in range(options.steps):
        rate = (held + missed) / 2
        rows.append(row := arrivals.offer(rate, options.seconds))
        holds = row.p95 < options.limit and not (row.refused or row.failed)
        print_row([rate, *list(asdict(row).values())[1:], "yes" if holds else "no"], WIDTHS)
        held, missed = (rate, missed) if holds else (held, rate)
    return held, rows


def main() -> None:
    """Measure what a replica carries, or take it, and print what rates of requests need."""
    options = _parse()
    if options.carried:
        _plan(options.carried, options)
        return
    print(f"{options.history} candles, horizon {options.horizon}; callers on {processor()}")
    if options.url:
        figures = {options.url: _measured(options.url, options)}
    else:
        figures = {
            f"{shape} {dtype}": _started(shape, dtype, options)
            for shape in options.shapes
            for dtype in options.dtypes
        }
    write_json(options.json, "carry", figures)


def _started(shape: str, dtype: str, options: argparse.Namespace) -> dict[str, Any]:
    """What a service of this shape and precision carries, with random weights."""
    workers = {"GUNICORN_WORKERS": options.workers, "TORCH_THREADS": options.threads}
    with tempfile.TemporaryDirectory() as folder:
        make_oracle(shape, Path(folder))
        with service(Path(folder), DTYPE=dtype, **workers) as running:
            print(f"\nKronos-{shape} shape, {dtype}, {running.workers} workers")
            return _measured(running.url, options)


def _measured(url: str, options: argparse.Namespace) -> dict[str, Any]:
    carried, rows = carried_rate(url, options)
    print(f"carries {carried:.2f} requests/s with p95 < {options.limit:g} s")
    if carried:
        _plan(carried, options)
    return {"carried": carried, "rows": [asdict(row) for row in rows]}


def _plan(carried: float, options: argparse.Namespace) -> None:
    """Print what each rate needs."""
    shown = len(PLAN_HEADINGS) if options.core_hour else len(PLAN_HEADINGS) - 1
    print_row(PLAN_HEADINGS[:shown], PLAN_WIDTHS[:shown])
    for rate in RATES:
        needed = need(rate, carried, options.cores, options.machine)
        cost = f"{needed.cost(options.core_hour or 0):,.0f}"
        cells = (f"{rate:g}", needed.replicas, needed.cores, needed.machines, cost)
        print_row(cells[:shown], PLAN_WIDTHS[:shown])


def _parse() -> argparse.Namespace:
    made = parser("carry", __doc__)
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    made.add_argument("--url", help="base URL of one replica that runs elsewhere")
    made.add_argument("--carried", type=float, help="requests/s of a replica; not measured then")
    made.add_argument("--shapes", nargs="+", default=["mini", "small"])
    made.add_argument("--dtypes", nargs="+", default=["float32", "int8"])
    made.add_argument("--workers", type=int, help="GUNICORN_WORKERS; its default otherwise")
    made.add_argument("--seconds", type=float, default=40, help="of each rate")
    made.add_argument("--steps", type=int, default=5, help="rates to try")
    made.add_argument("--limit", type=float, default=2.0, help="seconds, of the 95th percentile")
    made.add_argument("--cores", type=int, default=2, help="of a replica")
    made.add_argument("--machine", type=int, default=32, help="cores of a machine")
    made.add_argument("--core-hour", type=float, help="price of a core for an hour")
    made.add_argument("--history", type=int, default=400)
    made.add_argument("--horizon", type=int, default=24)
    made.add_argument("--insecure", action="store_true", help="accept any certificate")
    made.set_defaults(threads=None, new_connections=True)
    return made.parse_args()


if __name__ == "__main__":
    main()
