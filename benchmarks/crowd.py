"""Many callers at once over HTTP: a service that runs somewhere, or one that is started here.

    python -m benchmarks.crowd --url https://forecasts.example.com
    python -m benchmarks.crowd --start --dtypes float32 bfloat16 --workers 2 --threads 1

Each caller has one connection and sends its next request when it has the response. A row has the
requests a second, the latencies, and the requests that were refused (429, 503) or failed. The last
line compares the latency of 20 callers with the target, p95 below 2 s. A service that is started
here runs a checkpoint of random weights; the memory of its largest worker follows its table.
A deployment must list this machine in KRONOS_CONTAINER_WHITELIST and grant it the rate.
"""

from __future__ import annotations

import argparse
import json
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import numpy as np

from benchmarks.report import parser, print_row, processor, write_json
from benchmarks.service import NotStarted, body, service
from tests.oracle import make_oracle, walk

CALLERS: Final = (1, 2, 4, 8, 16, 20, 32, 64)
TARGET_CALLERS: Final = 20
TARGET_SECONDS: Final = 2.0
"""The 95th percentile of the latency of so many callers is to stay below this."""
TIMEOUT: Final = 120.0
"""Seconds that a caller waits for a response."""
REQUESTS_A_CALLER: Final = 10
"""At least: the first requests of all callers arrive together, those after them do not."""
HEADINGS: Final = ("callers", "requests/s", "p50 s", "p95 s", "p99 s", "refused", "failed")
WIDTHS: Final = (8, 11, 8, 8, 8, 8, 8)


@dataclass(frozen=True, slots=True)
class Row:
    """What a number of callers got; latencies in seconds, NaN if none was answered."""

    callers: int
    rate: float
    p50: float
    p95: float
    p99: float
    refused: int
    failed: int


class Crowd:
    """Callers that share a number of requests of one size."""

    def __init__(self, url: str, options: argparse.Namespace) -> None:
        self.wait: Callable[[float], object] = time.sleep
        self._url = urlsplit(url)
        self._new_connections: bool = options.new_connections
        self._insecure: bool = options.insecure
        series = [walk(options.history, seed=seed) for seed in range(8)]
        self._bodies = [
            json.dumps(body(one, options.horizon, seed)).encode() for seed, one in enumerate(series)
        ]
        self._lock = threading.Lock()
        self._left = 0
        self._latencies: list[float] = []
        self._refused = self._failed = 0

    def measure(self, callers: int, requests: int) -> Row:
        """Let so many callers send so many requests in all."""
        self._left, self._latencies, self._refused, self._failed = requests, [], 0, 0
        threads = [threading.Thread(target=self._call, args=(n,)) for n in range(callers)]
        begin = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.perf_counter() - begin
        answered = self._latencies or [float("nan")]
        p50, p95, p99 = (float(value) for value in np.quantile(answered, [0.5, 0.95, 0.99]))
        rate = len(self._latencies) / seconds
        return Row(callers, rate, p50, p95, p99, self._refused, self._failed)

    def get(self, path: str) -> Any:
        """The JSON at `path`."""
        connection = self._connect()
        connection.request("GET", self._url.path.rstrip("/") + path)
        answer = json.loads(connection.getresponse().read())
        connection.close()
        return answer

    def _connect(self) -> HTTPConnection:
        host, port = self._url.hostname or "", self._url.port
        if self._url.scheme == "http":
            return HTTPConnection(host, port, timeout=TIMEOUT)
        context = ssl.create_default_context()
        if self._insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return HTTPSConnection(host, port, timeout=TIMEOUT, context=context)

    def _call(self, number: int) -> None:
        connection = self._connect()
        path = self._url.path.rstrip("/") + "/v1/predict/single"
        sent = self._bodies[number % len(self._bodies)]
        for _ in self._shares():
            begin = time.perf_counter()
            try:
                connection.request("POST", path, sent, {"Content-Type": "application/json"})
                response = connection.getresponse()
                response.read()
            except (OSError, HTTPException):
                connection.close()
                with self._lock:
                    self._failed += 1
                continue
            seconds = time.perf_counter() - begin
            refused = response.status in (429, 503)
            if self._new_connections or refused:  # it would close while the caller waits
                connection.close()
            self._note(response.status, seconds)
            if refused:
                self.wait(float(response.headers.get("Retry-After", 1)))
        connection.close()

    def _shares(self) -> Iterator[None]:
        """Take one request after the other from those that are left."""
        while True:
            with self._lock:
                if not self._left:
                    return
                self._left -= 1
            yield

    def _note(self, status: int, seconds: float) -> None:
        with self._lock:
            if status == 200:
                self._latencies.append(seconds)
            elif status in (429, 503):
                self._refused += 1
            else:
                self._failed += 1


def main() -> None:
    """Print a table for the service, or one for each precision of those that are started."""
    options = _parse()
    print(f"{options.history} candles, horizon {options.horizon}; callers on {processor()}")
    if options.url:
        write_json(
            options.json, "crowd", {options.url: _table(Crowd(options.url, options), options)}
        )
        return
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        make_oracle(options.shape, Path(folder))
        for dtype in options.dtypes:
            figures[dtype] = _started(Path(folder), dtype, options)
    write_json(options.json, "crowd", figures)


def _started(folder: Path, dtype: str, options: argparse.Namespace) -> dict[str, Any]:
    """The table of a service of this precision, and the memory of its largest worker."""
    settings = {"GUNICORN_WORKERS": options.workers, "TORCH_THREADS": options.threads}
    try:
        with service(folder, DTYPE=dtype, **settings) as running:
            loaded, _ = running.memory_mb()
            print(
                f"\nKronos-{options.shape} shape, random weights, {dtype},"
                f" {running.workers} workers of {running.threads} threads"
            )
            table = _table(Crowd(running.url, options), options)
            after, peak = running.memory_mb()
    except NotStarted as refusal:
        print(f"\n{dtype}: skipped, the service does not start: {refusal}")
        return {"skipped": str(refusal)}
    print(f"memory of a worker: {loaded:.0f} MB loaded, {after:.0f} MB at the end, peak {peak:.0f}")
    return table | {"loaded_mb": loaded, "after_mb": after, "peak_mb": peak}


def _table(crowd: Crowd, options: argparse.Namespace) -> dict[str, Any]:
    """Print a row for each number of callers, and the target."""
    model = crowd.get("/v1/models")
    print(f"{model['model']['id']} on {model['device']} in {model['dtype']}")
    print_row(HEADINGS, WIDTHS)
    crowd.measure(1, 2)  # warm-up
    rows = []
    for callers in options.callers:
        rows.append(crowd.measure(callers, max(options.requests, REQUESTS_A_CALLER * callers)))
        print_row(list(asdict(rows[-1]).values()), WIDTHS)
    for row in rows:
        if row.callers == TARGET_CALLERS:
            met = row.p95 < TARGET_SECONDS and not (row.failed or row.refused)
            verdict = "met" if met else "missed"
            print(f"target: {row.callers} callers, p95 < {TARGET_SECONDS:g} s: {verdict}")
    return {"model": model, "rows": [asdict(row) for row in rows]}


def _parse() -> argparse.Namespace:
    made = parser("crowd", __doc__)
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    which = made.add_mutually_exclusive_group(required=True)
    which.add_argument("--url", help="base URL of a service")
    which.add_argument("--start", action="store_true", help="start services, one a precision")
    made.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16", "int8"])
    made.add_argument("--workers", type=int, help="GUNICORN_WORKERS; its default otherwise")
    made.add_argument("--callers", type=int, nargs="+", default=CALLERS)
    made.add_argument("--requests", type=int, default=20, help="of a row, or 10 a caller")
    made.add_argument("--history", type=int, default=400)
    made.add_argument("--horizon", type=int, default=24)
    made.add_argument("--new-connections", action="store_true", help="one for each request")
    made.add_argument("--insecure", action="store_true", help="accept any certificate")
    made.set_defaults(threads=None)
    return made.parse_args()


if __name__ == "__main__":
    main()
