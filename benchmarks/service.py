"""A service on a port of its own, for benchmarks that measure it over HTTP."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil

from kronos_api.timeseries.features import FIELDS
from tests.oracle import Series


class NotStarted(Exception):
    """The service ended before it served; the message is the last line that it printed."""


@dataclass(frozen=True, slots=True)
class Service:
    """A service whose workers are all ready to forecast."""

    url: str
    workers: int
    threads: int
    master: psutil.Process

    def memory_mb(self) -> tuple[float, float]:
        """Resident memory of the largest worker in MiB: at the moment, and its peak."""
        both = [_resident_mb(worker.pid) for worker in self.master.children()]
        return max(now for now, _ in both), max(peak for _, peak in both)


@contextmanager
def service(checkpoint: Path, **settings: object) -> Iterator[Service]:
    """A service with the checkpoint in a folder.

    `settings` are named as in the environment, without KRONOS_; None leaves the default.

    Raises:
        NotStarted: the service refused its settings, for example.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    own: dict[str, object] = {"HOST": "127.0.0.1", "PORT": port, "MODEL_PATH": checkpoint}
    own |= {"RATE_LIMIT_ENABLED": False, "MAX_QUEUE": 1000}
    environment = dict(os.environ)
    for name, value in (own | settings).items():
        if value is not None:
            environment[name if name.startswith("GUNICORN_") else f"KRONOS_{name}"] = str(value)
    # Two descriptions of one file, as reading moves the position that the service would write to.
    with tempfile.NamedTemporaryFile("r") as log, Path(log.name).open("a") as output:
        command = [sys.executable, "-m", "kronos_api", "serve"]
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        try:
            started = _wait_until_ready(process, log)
            yield Service(
                f"http://127.0.0.1:{port}",
                started["workers"],
                started["threads_per_worker"],
                psutil.Process(process.pid),
            )
        finally:
            process.terminate()
            process.wait(120)


def _wait_until_ready(process: subprocess.Popen[bytes], log: IO[str]) -> dict[str, Any]:
    """The fields of `service_starting`, once all workers that it announces listen."""
    while True:
        ended = process.poll() is not None
        log.seek(0)
        lines = log.read().splitlines()
        if ended:
            raise NotStarted(lines[-1] if lines else f"exit status {process.returncode}")
        events: dict[str, list[dict[str, Any]]] = {}
        for line in lines:
            with suppress(ValueError):  # a line that is being written, or not of the service
                event = json.loads(line)
                events.setdefault(event["event"], []).append(event)
        starting = events.get("service_starting")
        serving = min(len(events.get("model_ready", ())), len(events.get("listening", ())))
        if starting and serving >= starting[0]["workers"]:
            return starting[0]
        time.sleep(0.1)


def _resident_mb(process: int) -> tuple[float, float]:
    status = Path(f"/proc/{process}/status").read_text()
    rss, peak = (int(status.partition(name)[2].split()[0]) for name in ("VmRSS:", "VmHWM:"))
    return rss / 1024, peak / 1024


def body(series: Series, horizon: int, seed: int = 0) -> dict[str, Any]:
    """The request for `series` with its candles in columns."""
    names = [name for name in FIELDS if name in series.frame]
    history = len(series.frame)
    timestamps = [timestamp.isoformat() for timestamp in series.timestamps[: history + horizon]]
    return {
        "candles": {name: series.frame[name].to_list() for name in names},
        "timestamps": timestamps[:history],
        "prediction_timestamps": timestamps[history:],
        "overrides": {"seed": seed},
    }
