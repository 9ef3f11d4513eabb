"""How soon slow callers are closed, and how much they slow other callers down.

Starts the service in a process of its own and asks for `/v1/healthz` and for small forecasts,
first alone, then while very many connections send their headers slowly, their bodies slowly, or
nothing: after a first request, or from the start. Prints the seconds until they were closed and
the latency of the others before, while they come, and while they stay and go.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np

from benchmarks.report import parser, print_row, write_json
from benchmarks.service import body, service
from benchmarks.slow_callers import KINDS, PAUSE, STEP
from tests.oracle import make_oracle, walk

PHASES = ("before", "come", "stay")
HEADINGS = (
    *("kind", "first", "median", "last"),
    *(f"{asked} {phase}" for phase in PHASES for asked in ("healthz", "forecast")),
)
WIDTHS = (8, 8, 8, 8, 15, 15, 15, 15, 15, 15)
ALONE = 10.0
"""Seconds for which the others are measured alone."""


async def slow_callers(url: str, kind: str, count: int, *source: str) -> list[float]:
    """Seconds until each of `count` slow connections of a kind, from `source`, was closed."""
    parts = urlsplit(url)
    command = (sys.executable, "-m", "benchmarks.slow_callers")
    process = await asyncio.create_subprocess_exec(
        *command,
        *(str(parts.hostname), str(parts.port), kind, str(count), *source),
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).resolve().parents[1],
    )
    output, _ = await process.communicate()
    seconds: list[float] = json.loads(output)
    return seconds


async def others(url: str, until: Callable[[], bool]) -> tuple[list[float], list[float]]:
    """Milliseconds of health checks and of forecasts, in turn, once or until `until()`."""
    healths: list[float] = []
    forecasts: list[float] = []
    sent = body(walk(32), 1)
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        while not (healths and until()):
            begin = time.perf_counter()
            (await client.get("/v1/healthz")).raise_for_status()
            healths.append((time.perf_counter() - begin) * 1e3)
            begin = time.perf_counter()
            (await client.post("/v1/predict/single", json=sent)).raise_for_status()
            forecasts.append((time.perf_counter() - begin) * 1e3)
            await asyncio.sleep(0.02)
    return healths, forecasts


async def measure(url: str, kind: str, count: int) -> dict[str, float]:
    """One row: the others alone, then beside `count` slow callers."""
    before = await others(url, over(ALONE))
    slow = asyncio.create_task(slow_callers(url, kind, count))
    come = await others(url, over(count / STEP * PAUSE))
    stay = await others(url, slow.done)
    closed = slow.result()
    row = {
        "closed_first": min(closed),
        "closed_median": float(np.median(closed)),
        "closed_last": max(closed),
    }
    for phase, (healths, forecasts) in zip(PHASES, (before, come, stay), strict=True):
        row[f"healthz_p99_{phase}"] = float(np.quantile(healths, 0.99))
        row[f"forecast_p99_{phase}"] = float(np.quantile(forecasts, 0.99))
    return row


def over(seconds: float) -> Callable[[], bool]:
    """Whether so many seconds have passed from now."""
    end = time.perf_counter() + seconds
    return lambda: time.perf_counter() > end


def main() -> None:
    """Print the table."""
    made = parser("slow_clients", __doc__)
    made.add_argument("--count", type=int, default=1000, help="slow connections of each kind")
    made.add_argument("--kinds", nargs="*", default=list(KINDS), choices=list(KINDS))
    made.set_defaults(shape="tiny")
    options = made.parse_args()
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        make_oracle(options.shape, Path(folder))
        print(f"{options.count} slow connections of each kind; seconds until closed, p99 in ms")
        print_row(HEADINGS, WIDTHS)
        with service(Path(folder), GUNICORN_WORKERS=1, TORCH_THREADS=options.threads) as running:
            url = running.url
            for kind in options.kinds:
                rows[kind] = asyncio.run(measure(url, kind, options.count))
                print_row([kind, *rows[kind].values()], WIDTHS)
    write_json(options.json, "slow_clients", rows)


if __name__ == "__main__":
    main()
