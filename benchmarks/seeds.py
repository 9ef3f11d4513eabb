"""Seeded requests over HTTP, one at a time and then by many callers: the responses must be equal.

Histories, horizons, sample paths and sampling parameters differ from request to request, so that
each one has other batch-mates the second time. Responses are compared as JSON without `timings_ms`.
Exits with 1 if one differs.
"""

from __future__ import annotations

import json
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks.report import parser, print_row, processor, write_json
from benchmarks.service import NotStarted, body, service
from tests.oracle import make_oracle, walk

WIDTHS = (10, 10, 10, 10)


def requests(count: int) -> list[bytes]:
    """Random requests, each with a seed."""
    numbers = np.random.default_rng(0)
    made = []
    for seed in range(count):
        overrides: dict[str, Any] = {
            "sample_count": int(numbers.choice([1, 1, 1, 2, 5])),
            "temperature": float(numbers.choice([0.5, 1.0, 1.5])),
            "top_p": float(numbers.choice([0.9, 1.0])),
            "top_k": int(numbers.choice([0, 0, 20])),
            "seed": seed,
        }
        series, horizon = walk(int(numbers.integers(8, 300))), int(numbers.integers(1, 24))
        made.append(json.dumps(body(series, horizon) | {"overrides": overrides}).encode())
    return made


def ask(client: httpx.Client, request: bytes) -> str:
    """The response without the times it took."""
    headers = {"Content-Type": "application/json"}
    response = client.post("/v1/predict/single", content=request, headers=headers)
    response.raise_for_status()
    answer = response.json()
    del answer["timings_ms"]
    return json.dumps(answer)


def repeated(url: str, made: list[bytes], callers: int) -> int:
    """How many of the requests have the same response alone and under load."""
    with httpx.Client(base_url=url, timeout=120) as client:
        alone = [ask(client, request) for request in made]
        order = np.random.default_rng(1).permutation(len(made))
        with ThreadPoolExecutor(callers) as pool:
            busy = list(pool.map(lambda index: ask(client, made[index]), order))
    return sum(alone[index] == answer for index, answer in zip(order, busy, strict=True))


def main() -> int:
    """Print one row a precision."""
    options = parser("seeds", __doc__)
    options.add_argument("--requests", type=int, default=1000)
    options.add_argument("--callers", type=int, default=16)
    options.add_argument("--workers", type=int, default=2)
    chosen = options.parse_args()
    made, figures = requests(chosen.requests), {}
    print(f"{processor()}, Kronos-{chosen.shape} shape, {chosen.workers} workers of one thread")
    print_row(["dtype", "requests", "callers", "equal"], WIDTHS)
    with tempfile.TemporaryDirectory() as folder:
        make_oracle(chosen.shape, Path(folder))
        for dtype in ("float32", "int8"):
            settings = {"GUNICORN_WORKERS": chosen.workers, "TORCH_THREADS": 1, "DTYPE": dtype}
            try:
                with service(Path(folder), **settings) as running:
                    figures[dtype] = repeated(running.url, made, chosen.callers)
            except NotStarted as refusal:
                print(f"{dtype}: {refusal}")
                continue
            print_row([dtype, len(made), chosen.callers, figures[dtype]], WIDTHS)
    write_json(chosen.json, "seeds", figures)
    return int(any(equal < len(made) for equal in figures.values()))


if __name__ == "__main__":
    raise SystemExit(main())
