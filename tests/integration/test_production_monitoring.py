"""Prometheus finds every replica, and its alerts reach Alertmanager."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any
from urllib.request import ProxyHandler, build_opener

import pytest

from tests.integration.rolling import Deployment
from tests.integration.stack import ROOT, Stack, docker, inspect, running, until
from tests.processes import free_port

pytestmark = pytest.mark.docker

COMPOSE = "monitoring/docker-compose.yml"
PORTS = ("PROMETHEUS_PORT", "ALERTMANAGER_PORT", "GRAFANA_PORT")
OPENER = build_opener(ProxyHandler({}))
# Ends the workers, whose parent is the container's first process, without a chance to tell.
KILL_WORKERS = """
import contextlib, os, pathlib, re
for status in pathlib.Path("/proc").glob("[0-9]*/status"):
    pid = int(status.parent.name)
    with contextlib.suppress(OSError):  # of a process that has just ended
        if re.search(r"^PPid:\\t1$", status.read_text(), re.M) and pid != os.getpid():
            os.kill(pid, 9)
"""


@pytest.fixture(scope="module")
def monitoring(deployment: Deployment) -> Iterator[Stack]:
    """The monitoring stack on the network of the deployment."""
    project = f"{deployment.stack.project}-monitoring"
    settings = {
        "COMPOSE_PROJECT_NAME": project,
        "KRONOS_MONITORING_NETWORK": project,
        "KRONOS_NETWORK": deployment.stack.network,
        "GRAFANA_PASSWORD": "trial",
    }
    settings |= dict(zip(PORTS, (str(free_port()) for _ in PORTS), strict=True))
    stack = Stack("", settings, file=COMPOSE)
    for image in stack.compose("config", "--images").split():
        if subprocess.run(["docker", "image", "inspect", image], capture_output=True).returncode:
            pytest.skip(f"needs the image {image}")
    with running(stack) as up:
        yield up


def ask(stack: Stack, path: str, port: str = "PROMETHEUS_PORT") -> Any:
    with OPENER.open(f"http://127.0.0.1:{stack.env[port]}{path}", timeout=10) as answer:
        return json.load(answer)


def until_told(holds: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait until `holds()`; who asks and gets no answer in time does not know yet."""

    def told() -> bool:
        with suppress(OSError):
            return holds()
        return False

    until(told, seconds, what)


def targets(stack: Stack) -> dict[str, str]:
    """Health of every replica that Prometheus asks, by its address."""
    found = ask(stack, "/api/v1/targets?state=active")["data"]["activeTargets"]
    return {
        one["labels"]["instance"]: one["health"]
        for one in found
        if one["labels"]["job"] == "kronos-api"
    }


def test_every_replica_is_scraped(monitoring: Stack, deployment: Deployment) -> None:
    expected = {
        f"{known['NetworkSettings']['Networks'][deployment.stack.network]['IPAddress']}:8000": "up"
        for known in deployment.replicas().values()
    }
    assert len(expected) == 2
    until_told(lambda: targets(monitoring) == expected, 90, f"{expected} up")
    groups = ask(monitoring, "/api/v1/rules")["data"]["groups"]
    files = (ROOT / "monitoring" / "prometheus" / "rules").glob("*.yml")
    rules = "".join(path.read_text("utf-8") for path in files)
    named = re.findall(r"- (?:alert|record): (\S+)", rules)
    assert sorted(rule["name"] for group in groups for rule in group["rules"]) == sorted(named)


def test_monitoring_containers_are_hardened_and_on_loopback(monitoring: Stack) -> None:
    for service in ("prometheus", "alertmanager", "grafana"):
        (container,) = monitoring.containers(service)
        host = inspect(container)["HostConfig"]
        assert host["ReadonlyRootfs"]
        assert host["CapDrop"] == ["ALL"]
        assert host["Memory"] > 0
        assert inspect(container)["Config"]["User"] not in ("", "0", "root")
        bound = [port for ports in host["PortBindings"].values() for port in ports]
        assert [port["HostIp"] for port in bound] == ["127.0.0.1"]


def test_killed_worker_fires_an_alert(monitoring: Stack, deployment: Deployment) -> None:
    until_told(lambda: set(targets(monitoring).values()) == {"up"}, 90, "replicas asked")
    one = next(iter(deployment.replicas()))
    # The rise of a counter shows after two looks at it.
    until_told(lambda: _samples(monitoring) >= 2, 90, "deaths counted twice")
    docker("exec", one, "python", "-c", KILL_WORKERS)

    def told() -> bool:
        alerts = ask(monitoring, "/api/v2/alerts", "ALERTMANAGER_PORT")
        return "KronosWorkerDied" in [alert["labels"]["alertname"] for alert in alerts]

    until_told(told, 180, "the alert in Alertmanager")


def _samples(stack: Stack) -> int:
    query = "/api/v1/query?query=count_over_time(kronos_worker_deaths_total[5m])"
    counts = [int(one["value"][1]) for one in ask(stack, query)["data"]["result"]]
    return min(counts) if len(counts) == 2 else 0
