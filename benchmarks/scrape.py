"""How long a scrape takes with many workers and callers.

Starts the service around an engine that sleeps, with a whitelist of as many addresses as there are
callers. Each sends forecasts, also wrong ones, on connections of its own, so that every worker has
series of every caller. Prints the times of a scrape over HTTP, its series, the bytes of the files,
and the processor time of reading them, here and by prometheus_client's own collector.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from benchmarks.report import parser, print_row, processor, write_json
from kronos_api.telemetry.text_format import text
from kronos_api.telemetry.worker_values import WorkerValues
from tests.processes import Service, services
from tests.web import JSON, SINGLE, body

HEADINGS = (
    *("workers", "callers", "series", "files KiB"),
    *("p50 ms", "p99 ms", "max ms", "read ms", "library ms"),
)
WIDTHS = (8, 8, 8, 10, 8, 8, 8, 8, 11)


def call(service: Service, address: str, content: str) -> None:
    """One forecast from `address`, on a connection of its own."""
    link = HTTPConnection("127.0.0.1", service.port, source_address=(address, 0))
    link.request("POST", SINGLE, content, JSON)
    link.getresponse().read()
    link.close()


def scrapes(service: Service, count: int) -> tuple[list[float], int]:
    """Milliseconds of each scrape, and the series of the last."""
    link = HTTPConnection("127.0.0.1", service.port)
    times, content = [], b""
    for _ in range(count):
        began = time.perf_counter()
        link.request("GET", "/metrics")
        content = link.getresponse().read()
        times.append((time.perf_counter() - began) * 1000)
    return times, sum(not line.startswith(b"#") for line in content.splitlines())


def readings(directory: Path, count: int = 20) -> tuple[float, float]:
    """Median milliseconds of processor time to read all series, here and by the library."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(directory))  # type: ignore[no-untyped-call]
    shared = WorkerValues(directory)

    def median(read: Callable[[], bytes]) -> float:
        times = []
        for _ in range(count):
            began = time.process_time()
            read()
            times.append((time.process_time() - began) * 1000)
        return float(np.median(times))

    return median(lambda: text(shared.collect())), median(lambda: generate_latest(registry))


def main() -> None:
    """Measure and print."""
    arguments = parser("scrape", __doc__)
    arguments.add_argument("--workers", type=int, default=4)
    arguments.add_argument("--callers", type=int, default=50)
    arguments.add_argument("--scrapes", type=int, default=100)
    options = arguments.parse_args()
    callers = [f"127.0.1.{number + 1}" for number in range(options.callers)]
    contents = [json.dumps(body(8, horizon=horizon)) for horizon in (4, 0)]
    command = (sys.executable, "-m", "tests.paced_service", "0", "serve")
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder) / "metrics"
        settings = {"CONTAINER_WHITELIST": ",".join(["localhost", *callers])}
        with services(
            Path(folder), 1, options.workers, command=command, METRICS_DIR=str(files), **settings
        ) as (service,):
            for _ in range(4 * options.workers):
                for caller in callers:
                    for content in contents:
                        call(service, caller, content)
            times, series = scrapes(service, options.scrapes)
            used = sum(path.stat().st_blocks * 512 for path in files.rglob("*.db"))
            (directory,) = files.iterdir()
            here, library = readings(directory)
    result = {
        "workers": options.workers,
        "callers": options.callers,
        "series": series,
        "files_kib": used // 1024,
        "p50_ms": float(np.percentile(times, 50)),
        "p99_ms": float(np.percentile(times, 99)),
        "max_ms": max(times),
        "read_ms": here,
        "library_read_ms": library,
    }
    print(processor())
    print_row(HEADINGS, WIDTHS)
    print_row([f"{value:.0f}" for value in result.values()], WIDTHS)
    write_json(options.json, "scrape", result)


if __name__ == "__main__":
    main()
