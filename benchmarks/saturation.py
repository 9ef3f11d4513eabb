"""Throughput and latency against concurrency: requests decoded together, and one at a time.

First 32 requests at once, with histories from 64 to 400, for a short and a long horizon; then 1 to
64 clients, each of which sends its next request when it has received a response.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.report import parser, print_row, write_json
from kronos_api.engine.build import build_engine
from kronos_api.engine.engine import Engine
from kronos_api.engine.request import ForecastRequest
from kronos_api.predictor import AsyncPredictor
from tests.oracle import make_oracle, walk

TOGETHER = 32
CLIENTS = (1, 2, 4, 8, 16, 32, 64)
WIDTHS = (8, 8, 14, 12, 10, 10, 10)


def make_requests(count: int, horizon: int, sample_count: int = 1) -> list[ForecastRequest]:
    """Requests with histories spread evenly from 64 to 400, in shuffled order."""
    histories = np.linspace(64, 400, count).astype(int)
    np.random.default_rng(0).shuffle(histories)
    params = {"top_k": 0, "top_p": 0.9, "sample_count": sample_count}
    return [
        walk(int(history), seed=seed).request(horizon, seed=seed, **params)
        for seed, history in enumerate(histories)
    ]


async def start(engine: Engine, max_active: int) -> AsyncPredictor:
    """A predictor over `engine` that decodes at most `max_active` requests together."""
    predictor = AsyncPredictor(
        lambda: engine,
        max_queue=1000,
        inference_timeout=3600,
        kv_cache_mb=8192,
        max_active=max_active,
    )
    await predictor.start()
    await predictor.ready()
    return predictor


async def all_at_once(engine: Engine, max_active: int, horizon: int) -> float:
    """Seconds for `TOGETHER` requests that arrive at the same moment."""
    predictor = await start(engine, max_active)
    requests = make_requests(TOGETHER, horizon)
    begin = time.perf_counter()
    await asyncio.gather(*(predictor.predict(one, timeout=3600) for one in requests))
    seconds = time.perf_counter() - begin
    await predictor.stop()
    return seconds


async def closed_loop(
    engine: Engine, max_active: int, clients: int, horizon: int, total: int
) -> tuple[float, list[float]]:
    """Requests a second and every latency of `clients` that send `total` requests."""
    predictor = await start(engine, max_active)
    requests = make_requests(total, horizon)
    latencies: list[float] = []

    async def client() -> None:
        while requests:
            request = requests.pop()
            begin = time.perf_counter()
            await predictor.predict(request, timeout=3600)
            latencies.append(time.perf_counter() - begin)

    begin = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    rate = total / (time.perf_counter() - begin)
    await predictor.stop()
    return rate, latencies


def main() -> None:
    """Print both tables."""
    made = parser("saturation", __doc__)
    made.add_argument("--horizon", type=int, default=24, help="of the second table")
    made.add_argument("--clients", type=int, nargs="*", default=CLIENTS)
    options = made.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        oracle = make_oracle(options.shape, Path(folder))
        engine = build_engine(
            *oracle.sources, max_context=oracle.shape.context, torch_threads=options.threads
        )
    print(f"Kronos-{options.shape} shape, float32, {options.threads} threads")
    figures = {"at_once": _at_once(engine), "closed_loop": _closed_loop(engine, options)}
    write_json(options.json, "saturation", figures)


def _at_once(engine: Engine) -> list[dict[str, float]]:
    print(f"\n{TOGETHER} requests at once, histories 64 to 400, requests/s")
    print_row(["horizon", "together", "one at a time", "ratio"], WIDTHS[:4])
    rows = []
    for horizon in (24, 112):
        alone = TOGETHER / asyncio.run(all_at_once(engine, 1, horizon))
        together = TOGETHER / asyncio.run(all_at_once(engine, TOGETHER, horizon))
        print_row([horizon, together, alone, together / alone], WIDTHS[:4])
        rows.append({"horizon": horizon, "together": together, "one_at_a_time": alone})
    return rows


def _closed_loop(engine: Engine, options: argparse.Namespace) -> list[dict[str, float]]:
    print(f"\nClients in a closed loop, horizon {options.horizon}; latency in seconds")
    print_row(["clients", "decoded", "requests/s", "", "p50", "p95", "p99"], WIDTHS)
    rows = []
    for clients in options.clients:
        for name, max_active in (("together", 64), ("alone", 1)):
            total = max(16, 2 * clients)
            rate, latencies = asyncio.run(
                closed_loop(engine, max_active, clients, options.horizon, total)
            )
            p50, p95, p99 = (float(q) for q in np.quantile(latencies, [0.5, 0.95, 0.99]))
            print_row([clients, name, rate, "", p50, p95, p99], WIDTHS)
            rows.append(
                {
                    "clients": clients,
                    "together": max_active > 1,
                    "rate": rate,
                    "p50": p50,
                    "p95": p95,
                    "p99": p99,
                }
            )
    return rows


if __name__ == "__main__":
    main()
