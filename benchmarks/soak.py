"""Half an hour at 70 % of the measured capacity: memory, file descriptors, threads and latency.

    nice python -m benchmarks.soak --json soak.json
    nice python -m benchmarks.soak --minutes 480

The service, with its defaults and the rate limit on, runs a checkpoint of random weights. Its
capacity is measured first, by callers that send their next request when they have the response.
Then requests arrive at random times: forecasts of one path and of 16, batches and streams; 1 %
of the clients disconnect early, and half of the readers of streams leave after the first candle.

Exit status 1 if a bar is missed: after the warm-up, resident memory of each process grows by at
most 20 MB, under load and when idle; the idle service has no more threads and file descriptors
afterwards than before; no process is replaced, and no request or probe fails. Latencies are
reported and have no bar.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil

from benchmarks.report import parser, print_row, processor, write_json
from benchmarks.service import Service, service
from benchmarks.soak_load import ANSWERED, FAILED, REFUSED, Load
from tests.oracle import SHAPES, make_oracle

GROWTH_MB: Final = 20.0
"""Growth of the resident memory of a process after the warm-up, at most."""
INTERVAL: Final = 5.0
"""Seconds between samples."""
CALLERS: Final = 4
"""Requests in flight at once, at most, for each worker."""
QUIET: Final = 20.0
"""Seconds after which idle connections and idle threads of a pool have ended."""
HEADINGS: Final = ("minute", "answered", "refused", "failed", "left", "cut", "p50", "p95", "p99")
COLUMNS: Final = (ANSWERED, REFUSED, FAILED, "left", "disconnected", "p50", "p95", "p99")
WIDTHS: Final = (6, 9, 8, 7, 6, 5, 7, 7, 7)


@dataclass(frozen=True, slots=True)
class Sample:
    """A process at a moment: seconds since the load began, resident memory in MB."""

    second: float
    process: str
    pid: int
    rss_mb: float
    descriptors: int
    threads: int


@dataclass(frozen=True, slots=True)
class Bar:
    """A figure, its limit, and whether it holds."""

    name: str
    figure: float
    limit: float

    @property
    def holds(self) -> bool:
        """Whether the figure is within its limit."""
        return self.figure <= self.limit


def processes(running: Service) -> dict[str, psutil.Process]:
    """The master and its workers, by name."""
    workers = sorted(running.master.children(), key=lambda child: child.pid)
    named = {f"worker {number}": worker for number, worker in enumerate(workers, 1)}
    return {"master": running.master} | named


def sample(watched: dict[str, psutil.Process], second: float) -> list[Sample]:
    """Each process as it is; one that has ended is left out."""
    samples = []
    for name, process in watched.items():
        try:
            with process.oneshot():
                rss = process.memory_info().rss / 2**20
                row = Sample(
                    second, name, process.pid, rss, process.num_fds(), process.num_threads()
                )
        except psutil.NoSuchProcess:
            continue
        samples.append(row)
    return samples


async def watch(
    watched: dict[str, psutil.Process], samples: list[Sample], report: Callable[[int], None]
) -> None:
    """Take samples until cancelled; `report` gets the number of each minute that has passed."""
    began, minute = time.monotonic(), 0
    while True:
        samples += sample(watched, time.monotonic() - began)
        await asyncio.sleep(INTERVAL)
        if time.monotonic() - began > 60 * (minute + 1):
            report(minute)
            minute += 1


def bars(samples: list[Sample], before: list[Sample], after: list[Sample], load: Load) -> list[Bar]:
    """What must hold of the time after the warm-up."""
    found = []
    for first in before:
        rss = [row.rss_mb for row in samples if row.pid == first.pid]
        part = max(1, len(rss) // 5)
        # Forecasts in progress add to the memory of a moment, and not to the lower quartile.
        was, now = (float(np.quantile(window, 0.25)) for window in (rss[:part], rss[-part:]))
        found.append(Bar(f"{first.process}: growth of memory under load, MB", now - was, GROWTH_MB))
        last = next((row for row in after if row.pid == first.pid), None)
        found.append(Bar(f"{first.process}: replaced", float(last is None), 0))
        if last is not None:
            name = f"{first.process}: more"
            grown = last.rss_mb - first.rss_mb
            found += [
                Bar(f"{first.process}: growth of memory when idle, MB", grown, GROWTH_MB),
                Bar(f"{name} file descriptors when idle", last.descriptors - first.descriptors, 0),
                Bar(f"{name} threads when idle", last.threads - first.threads, 0),
            ]
    failed = sum(minute.outcomes[FAILED] for minute in load.minutes)
    probes = sum(minute.probes_failed for minute in load.minutes)
    return [*found, Bar("failed requests", failed, 0), Bar("failed probes", probes, 0)]


async def loaded(
    running: Service, options: argparse.Namespace, rate: float, minutes: float
) -> tuple[Load, list[Sample], list[Sample]]:
    """The load of so many minutes, the samples meanwhile, and those of the idle service after."""
    watched, samples = processes(running), list[Sample]()
    callers, seed = CALLERS * running.workers, int(minutes)
    load = Load(running.url, callers, options.history, options.horizon, seed)
    print_row(HEADINGS, WIDTHS)

    def report(minute: int) -> None:
        row = load.minutes[minute].figures()
        print_row([minute, *(row[name] for name in COLUMNS)], WIDTHS)

    watching = asyncio.create_task(watch(watched, samples, report))
    await load.steady(rate, 60 * minutes)
    watching.cancel()
    with suppress(asyncio.CancelledError):
        await watching
    await load.close()
    await asyncio.sleep(QUIET)
    return load, samples, sample(watched, 60 * minutes + QUIET)


async def soak(running: Service, options: argparse.Namespace) -> dict[str, Any]:
    """Measure the capacity, load the service to warm it up, then as long as asked."""
    callers = CALLERS * running.workers
    load = Load(running.url, callers, options.history, options.horizon)
    await load.capacity(10)
    capacity = await load.capacity(options.capacity_seconds)
    await load.close()
    rate = options.share * capacity
    print(f"capacity {capacity:.1f} requests/s; load {rate:.1f} requests/s; warm-up:")
    _, warming, before = await loaded(running, options, rate, options.warm_up)
    print("after the warm-up:")
    load, samples, after = await loaded(running, options, rate, options.minutes - options.warm_up)
    held = bars(samples, before, after, load)
    return {
        "capacity": capacity,
        "rate": rate,
        "delayed": load.delayed,
        "minutes": [minute.figures() for minute in load.minutes],
        "warm_up": [asdict(row) for row in warming],
        "samples": [asdict(row) for row in samples],
        "idle_before": [asdict(row) for row in before],
        "idle_after": [asdict(row) for row in after],
        "failures": dict(load.failures),
        "bars": [asdict(bar) | {"holds": bar.holds} for bar in held],
    }


def uptime(minutes: list[dict[str, Any]]) -> str:
    """Answered of all requests whose clients waited for the response, and probes."""
    answered, refused, failed = (
        sum(minute[name] for minute in minutes) for name in (ANSWERED, REFUSED, FAILED)
    )
    asked = answered + refused + failed
    probes = sum(minute["probes"] for minute in minutes)
    passed = probes - sum(minute["probes_failed"] for minute in minutes)
    return (
        f"answered {answered} of {asked} requests ({answered / max(asked, 1):.4%}),"
        f" {refused} refused; {passed} of {probes} probes ({passed / max(probes, 1):.4%})"
    )


def main() -> None:
    """Print a row for each minute, the bars and the share of answered requests."""
    made = parser("soak", __doc__)
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    made.add_argument("--minutes", type=float, default=30.0)
    made.add_argument("--warm-up", type=float, default=5.0, help="minutes; of shorter runs a third")
    made.add_argument("--share", type=float, default=0.7, help="of the capacity")
    made.add_argument("--capacity-seconds", type=float, default=60.0)
    made.add_argument("--history", type=int, default=400)
    made.add_argument("--horizon", type=int, default=24)
    made.add_argument("--workers", type=int, help="GUNICORN_WORKERS; its default otherwise")
    made.set_defaults(shape="mini", threads=None)
    options = made.parse_args()
    options.warm_up = min(options.warm_up, options.minutes / 3)
    settings: dict[str, object] = {
        "GUNICORN_WORKERS": options.workers,
        "TORCH_THREADS": options.threads,
        "MAX_QUEUE": None,
        "RATE_LIMIT_ENABLED": None,
        "RATE_LIMIT_PER_MINUTE": 1_000_000,
        "RATE_LIMIT_OTHER_PER_MINUTE": 1_000_000,
    }
    with tempfile.TemporaryDirectory() as folder:
        make_oracle(options.shape, Path(folder))
        assert options.history <= SHAPES[options.shape].context
        with service(Path(folder), **settings) as running:
            print(
                f"Kronos-{options.shape} shape, {running.workers} workers of"
                f" {running.threads} thread(s) on {processor()}; latency in ms"
            )
            figures = asyncio.run(soak(running, options))
    print(uptime(figures["minutes"]))
    for text, count in figures["failures"].items():
        print(f"failure: {text}: {count}")
    for bar in figures["bars"]:
        verdict = "holds" if bar["holds"] else "MISSED"
        print(f"{bar['name']}: {bar['figure']:.1f}, at most {bar['limit']:g}: {verdict}")
    write_json(options.json, "soak", figures)
    if not all(bar["holds"] for bar in figures["bars"]):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
