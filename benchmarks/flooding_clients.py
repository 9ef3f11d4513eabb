"""Whether clients that send as many tiny pieces as they can hold up the others.

Starts the service with one worker that lists 127.0.0.1 only. From 127.0.0.2, some connections send
one-byte chunks, headers of 16,000 lines, requests or health checks as fast as they can, and connect
again when they are refused. A listed client asks for `/v1/healthz` and small forecasts in turn:
alone, and beside them. Prints the longest health check, and the medians as ratios to those alone.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from benchmarks.report import parser, print_row, processor, write_json
from benchmarks.service import service
from benchmarks.slow_clients import others, over
from tests.oracle import make_oracle

UNLISTED = "127.0.0.2"
CHUNKED = b"POST %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
PIECES = b"1\r\n \r\n" * 10_000
KINDS: dict[str, tuple[bytes, bytes]] = {
    "chunks": (CHUNKED % b"/v1/predict/single", PIECES),
    "chunks to an open path": (CHUNKED % b"/v1/healthz", PIECES),
    "trailers": (CHUNKED % b"/v1/healthz" + b"0\r\n", b"a:\n" * 16_000),
    "header lines": (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a:\n" * 16_000 + b"\n", b""),
    "requests": (b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n", b""),
    "health checks": (b"", b"GET /v1/healthz HTTP/1.1\r\nHost: x\r\n\r\n"),
}
"""By kind: the first bytes of a connection, and the bytes it repeats."""
MEDIANS = ("healthz_p50", "forecast_p50")
HEADINGS = ("kind", "healthz max", "healthz p50", "ratio", "forecast p50", "ratio", "connections")
WIDTHS = (22, 12, 12, 8, 12, 8, 12)


def flood(port: int, kind: str) -> None:
    """Send for ever on one connection after the other; prints a dot for each."""
    first, again = KINDS[kind]
    while True:
        print(".", end="", flush=True)
        with (
            suppress(OSError),
            socket.create_connection(
                ("127.0.0.1", port), source_address=(UNLISTED, 0), timeout=5
            ) as link,
        ):
            link.sendall(first)
            while again:
                link.sendall(again)
            while link.recv(65_536):
                pass


async def beside(url: str, kind: str | None, count: int, seconds: float) -> dict[str, float]:
    """Latencies in ms of a listed client beside `count` flooding connections."""
    command = [sys.executable, "-m", "benchmarks.flooding_clients", "--flood", str(kind)]
    command += ["--port", str(urlsplit(url).port)]
    floods = [
        subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).resolve().parents[1])
        for _ in range(count if kind else 0)
    ]
    try:
        if floods:  # until they have all begun
            for one in floods:
                assert one.stdout is not None
                one.stdout.read(1)
        healths, forecasts = await others(url, over(seconds))
    finally:
        for one in floods:
            one.kill()
    opened = sum(len(one.communicate()[0]) for one in floods)
    return {
        "healthz_max": max(healths),
        "healthz_p50": float(np.median(healths)),
        "forecast_p50": float(np.median(forecasts)),
        "connections": opened,
    }


def main() -> None:
    """Print the table."""
    made = parser("flooding_clients", __doc__)
    made.add_argument("--count", type=int, default=4, help="connections at once")
    made.add_argument("--seconds", type=float, default=10.0, help="for each kind")
    made.add_argument("--kinds", nargs="*", default=list(KINDS), choices=list(KINDS))
    made.add_argument("--flood", choices=list(KINDS), help="be one of those connections")
    made.add_argument("--port", type=int, help="where to connect then")
    made.set_defaults(shape="tiny", threads=1)
    options = made.parse_args()
    if options.flood:
        flood(options.port, options.flood)
    rows = {}
    os.environ["KRONOS_CONTAINER_WHITELIST"] = "127.0.0.1"
    with tempfile.TemporaryDirectory() as folder:
        make_oracle(options.shape, Path(folder))
        print(f"{options.count} flooding connections on {processor()}; milliseconds")
        print_row(HEADINGS, WIDTHS)
        with service(Path(folder), GUNICORN_WORKERS=1, TORCH_THREADS=options.threads) as running:
            url = running.url
            for kind in options.kinds:
                # The machine may have other work: each kind is compared with the seconds before.
                alone = asyncio.run(beside(url, None, 0, options.seconds))
                row = asyncio.run(beside(url, kind, options.count, options.seconds))
                health, forecast = (row[name] / alone[name] for name in MEDIANS)
                rows[kind] = {"alone": alone, "beside": row}
                cells = [row["healthz_max"], row["healthz_p50"], health]
                print_row([kind, *cells, row["forecast_p50"], forecast, row["connections"]], WIDTHS)
    write_json(options.json, "flooding_clients", rows)


if __name__ == "__main__":
    main()
