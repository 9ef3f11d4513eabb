"""The service under Ray Serve on one node, as `serve run` starts it from deploy/ray/serve.yaml.

Ray brings other servers than the tests run with, so it lives in an environment of its own, whose
Python RAY_PYTHON names. docs/ray.md has the commands.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml  # type: ignore[import-untyped]

from kronos_api.app import create_app
from kronos_api.config import Settings
from tests.processes import ROOT, free_port, until, without_settings
from tests.web import listening

PYTHON = os.environ.get("RAY_PYTHON", "")
pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(not PYTHON, reason="needs RAY_PYTHON, a Python with Ray: docs/ray.md"),
]

REPLICA = "ray::ServeReplica"
SINGLE = (ROOT / "examples/request-single.json").read_bytes()


def ask(port: int, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    """Status and body of a response; POST if there is a body to send."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        method = "GET" if body is None else "POST"
        connection.request(method, path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read()


def forecast(port: int) -> dict[str, Any]:
    """The seeded forecast of a service, without the times that it took."""
    status, body = ask(port, "/v1/predict/single", SINGLE)
    assert status == 200, body
    return {name: value for name, value in json.loads(body).items() if name != "timings_ms"}


class Cluster:
    """Ray on this machine with the service on a port of its own."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self.log = log

    def processes(self) -> list[psutil.Process]:
        """All processes that Ray has started here."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def replicas(self) -> set[int]:
        """Process ids of the replicas."""
        found = set()
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                if process.name().startswith(REPLICA):
                    found.add(process.pid)
        return found

    def serves(self, replicas: int) -> bool:
        """Whether so many replicas have loaded the model."""
        assert self.process.poll() is None, self.log.read_text("utf-8")
        with suppress(OSError, http.client.HTTPException):
            status, metrics = ask(self.port, "/metrics")
            return status == 200 and f"kronos_workers {replicas}.0" in metrics.decode()
        return False


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two replicas of the demonstration checkpoint."""
    folder, port = tmp_path_factory.mktemp("serve"), free_port()
    config = yaml.safe_load((ROOT / "deploy/ray/serve.yaml").read_text("utf-8"))
    config["http_options"] |= {"host": "127.0.0.1", "port": port}
    (application,) = config["applications"]
    application["runtime_env"]["env_vars"] |= {
        "KRONOS_METRICS_DIR": str(folder / "metrics"),
        "KRONOS_RATE_LIMIT_DIR": str(folder),
        "KRONOS_RATE_LIMIT_PER_MINUTE": "100000",
    }
    (deployment,) = application["deployments"]
    deployment["ray_actor_options"] = {"num_cpus": 0.5}
    deployment["autoscaling_config"]["max_replicas"] = 2
    (folder / "serve.yaml").write_text(yaml.safe_dump(config))
    short = tempfile.mkdtemp(prefix="ray-")  # paths of sockets have at most 107 bytes
    environment = without_settings() | {"PYTHONPATH": str(ROOT), "RAY_TMPDIR": short}
    environment |= {"RAY_USAGE_STATS_ENABLED": "0", "HOME": short}  # Ray writes a token there
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [PYTHON, "-m", "ray.serve.scripts", "run", folder / "serve.yaml"],
            env=environment,
            cwd=folder,
            stdout=output,
            stderr=output,
        )
    started = Cluster(process, port, log)
    try:
        until(lambda: started.serves(2), 180)
        yield started
    finally:
        processes = started.processes()
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(60)
        for left in psutil.wait_procs(processes, timeout=10)[1]:
            left.kill()
        process.kill()
        process.wait(30)
        shutil.rmtree(short, ignore_errors=True)


async def test_a_seed_gives_the_bytes_of_the_service_alone(cluster: Cluster) -> None:
    async with listening(create_app(Settings(torch_threads=1))) as (_, port):
        while (await asyncio.to_thread(ask, port, "/v1/readyz"))[0] != 200:
            await asyncio.sleep(0.05)
        alone = await asyncio.to_thread(forecast, port)
    assert all(forecast(cluster.port) == alone for _ in range(4))


def test_requests_go_on_when_a_replica_is_killed(cluster: Cluster) -> None:
    before = cluster.replicas()
    assert len(before) == 2
    statuses: list[int] = []
    killed = min(before)
    done = threading.Event()

    def call() -> None:
        while not done.is_set():
            statuses.append(ask(cluster.port, "/v1/predict/single", SINGLE)[0])

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    until(lambda: len(statuses) >= 8)
    os.kill(killed, signal.SIGKILL)
    answered = len(statuses)
    until(lambda: len(cluster.replicas() - {killed}) == 2 and cluster.serves(2), 120)
    done.set()
    for caller in callers:
        caller.join()
    failed = [status for status in statuses if status != 200]
    assert len(failed) <= len(callers)  # those in the replica that was killed
    assert len(statuses) - answered > 2 * len(callers)
