"""What HTTP adds to a forecast, and how long the event loop is ever held up.

Starts the service in a process of its own. First one client: the time of a POST of 400 candles
against the engine called directly on the same candles. Then the engine is saturated by many
clients while `/v1/healthz` is asked every few milliseconds.
"""

from __future__ import annotations

import json
import tempfile
import threading
import time
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch

from benchmarks.report import parser, print_row, write_json
from benchmarks.service import body, service
from kronos_api.engine.build import build_engine
from tests.oracle import Oracle, make_oracle, walk

HISTORY, HORIZON = 400, 24
WIDTHS = (34, 10, 10, 10)


def milliseconds(count: int, run: Any) -> list[float]:
    """Times of `count` calls after one to warm up."""
    run()
    times = []
    for _ in range(count):
        begin = time.perf_counter()
        run()
        times.append((time.perf_counter() - begin) * 1e3)
    return times


def main() -> None:
    """Print both tables."""
    made = parser("http", __doc__)
    made.add_argument("--requests", type=int, default=30)
    made.add_argument("--clients", type=int, default=32)
    options = made.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        oracle = make_oracle(options.shape, Path(folder))
        print(f"Kronos-{options.shape} shape, {HISTORY} candles, horizon {HORIZON}; milliseconds")
        print_row(["", "p50", "p95", "p99"], WIDTHS)
        direct = _direct(oracle, options.threads, options.requests)
        with service(Path(folder), GUNICORN_WORKERS=1, TORCH_THREADS=options.threads) as running:
            url = running.url
            over_http = _over_http(url, options.requests)
            with httpx.Client(base_url=url) as client:
                idle = milliseconds(200, lambda: client.get("/v1/healthz"))
            alone, saturated = _healthz_under(url, 1), _healthz_under(url, options.clients)
    figures = {
        "engine called directly": direct,
        "POST /v1/predict/single, in all": over_http["total"],
        "of it outside the engine": over_http["outside"],
        "GET /v1/healthz, idle": idle,
        "healthz during forecasts, 1 client": alone,
        f"healthz, {options.clients} clients": saturated,
    }
    rows = {name: np.quantile(times, [0.5, 0.95, 0.99]).tolist() for name, times in figures.items()}
    for name, quantiles in rows.items():
        print_row([name, *quantiles], WIDTHS)
    print(f"longest healthz while saturated: {max(saturated):.1f} ms")
    write_json(options.json, "http", rows)


def _direct(oracle: Oracle, threads: int, count: int) -> list[float]:
    engine = build_engine(*oracle.sources, torch_threads=threads)
    request = walk(HISTORY).request(HORIZON, top_k=0, top_p=0.9)
    return milliseconds(count, lambda: engine.run(request))


def _over_http(url: str, count: int) -> dict[str, list[float]]:
    """Time of a POST as its caller sees it, and how much of it was not inference."""
    inference: list[float] = []
    sent = json.dumps(body(walk(HISTORY), HORIZON)).encode()
    # The plainest client there is: it is the service that is to be measured.
    client = HTTPConnection(url.removeprefix("http://"), timeout=120)

    def ask() -> None:
        client.request("POST", "/v1/predict/single", sent, {"Content-Type": "application/json"})
        answer = client.getresponse().read()
        inference.append(json.loads(answer)["timings_ms"]["inference"])

    total = milliseconds(count, ask)
    client.close()
    pairs = zip(total, inference[1:], strict=True)
    return {"total": total, "outside": [whole - inner for whole, inner in pairs]}


def _healthz_under(url: str, clients: int) -> list[float]:
    """Times of `/v1/healthz`, asked all the while `clients` ask for forecasts."""
    stop = threading.Event()

    def load(seed: int) -> None:
        sent = body(walk(HISTORY, seed), 112, seed)
        with httpx.Client(base_url=url, timeout=600) as client:
            while not stop.is_set():
                client.post("/v1/predict/single", json=sent)

    threads = [threading.Thread(target=load, args=(seed,)) for seed in range(clients)]
    for thread in threads:
        thread.start()
    time.sleep(1)
    with httpx.Client(base_url=url, timeout=60) as client:
        times = []
        for _ in range(400):
            begin = time.perf_counter()
            client.get("/v1/healthz").raise_for_status()
            times.append((time.perf_counter() - begin) * 1e3)
            time.sleep(0.02)
    stop.set()
    for thread in threads:
        thread.join()
    return times


if __name__ == "__main__":
    main()
