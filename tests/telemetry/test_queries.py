"""Every documented query returns data in a real Prometheus that scrapes the service under load."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import Request

import pytest

from tests.processes import OPENER, free_port, services, until
from tests.telemetry.test_metrics_document import queries
from tests.web import JSON, SINGLE, body

CONFIGURATION = """
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
  - job_name: kronos-api
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(
        shutil.which("prometheus") is None, reason="no prometheus (Debian: prometheus)"
    ),
]


class Prometheus:
    """A running Prometheus."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The result of an instant query; empty while Prometheus does not answer."""
        try:
            url = f"{self.url}/api/v1/query?query={quote(expression)}"
            with OPENER.open(url, timeout=30) as answer:
                result: list[dict[str, Any]] = json.load(answer)["data"]["result"]
                return result
        except OSError:
            return []


@contextmanager
def prometheus(folder: Path, target: int) -> Iterator[Prometheus]:
    """Prometheus that scrapes port `target` every second."""
    configuration = folder / "prometheus.yml"
    configuration.write_text(CONFIGURATION.format(port=target))
    port = free_port()
    process = subprocess.Popen(
        [
            "prometheus",
            f"--config.file={configuration}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield Prometheus(port)
    finally:
        process.kill()
        process.wait(60)


def test_every_documented_query_returns_data(tmp_path: Path) -> None:
    many = {"RATE_LIMIT_PER_MINUTE": "1000000", "RATE_LIMIT_OTHER_PER_MINUTE": "1000000"}
    with (
        services(tmp_path, 1, 2, **many) as (service,),
        prometheus(tmp_path, service.port) as running,
    ):
        content = json.dumps(body(60, horizon=4)).encode()

        def load() -> list[str]:
            """Some forecasts; the queries that return nothing yet."""
            for _ in range(3):
                OPENER.open(Request(service.url + SINGLE, content, JSON), timeout=60).close()
            service.get("/v1/models")
            return [query for query in queries() if not running.query(query)]

        until(lambda: not load())
        # The answers are those of the service, not of series that are 0.
        for metric in ("candles_decoded_total", "phase_seconds_count", "decode_batch_size_count"):
            (found,) = running.query(f"sum(kronos_{metric})")
            assert float(found["value"][1]) > 0
        assert not running.query('kronos_requests_total{route="/metrics"}')
