"""The service as operators run it: compose, its limits, and who is answered what."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.integration.stack import BODY, SERVICE, Caller, Stack, caller, docker, inspect

pytestmark = pytest.mark.docker

SINGLE = "/v1/predict/single"
GIB = 2**30
PEAK = "cat /sys/fs/cgroup/memory.peak || cat /sys/fs/cgroup/memory/memory.max_usage_in_bytes"


def quick(rows: int = 16, horizon: int = 1, **more: Any) -> dict[str, Any]:
    """A request that takes no time to speak of."""
    candle = {"open": 10, "high": 11, "low": 9, "close": 10, "volume": 5}
    start = datetime(2025, 3, 3)
    stamps = [f"{start + timedelta(minutes=5 * n):%Y-%m-%dT%H:%M:%SZ}" for n in range(rows)]
    return {"candles": [candle] * rows, "timestamps": stamps, "horizon": horizon} | more


def test_sibling_gets_a_forecast_by_service_name(sibling: Caller) -> None:
    answer = sibling.ask(SINGLE, BODY)
    assert answer.status == 200, answer
    assert len(answer.body["prediction"]) == 24
    assert int(answer.headers["x-ratelimit-limit"]) == 100


def test_smoke_test_runs_at_each_start(stack: Stack) -> None:
    for runs in (1, 2):
        stack.compose("up", "-d")
        (smoke,) = stack.containers("smoke")
        assert docker("wait", smoke) == "0"
        assert stack.compose("logs", "--follow", "smoke").count("smoke 6 of 6 passed") == runs


def test_unlisted_client_gets_403(unlisted: Caller) -> None:
    answer = unlisted.ask(SINGLE, BODY, headers={"X-Forwarded-For": "127.0.0.1"})
    assert (answer.status, answer.code) == (403, "CONTAINER_NOT_ALLOWED")
    assert unlisted.ask("/v1/readyz").status == 200


def test_caller_is_identified_without_the_gateway(
    stack: Stack, sibling: Caller, unlisted: Caller
) -> None:
    """Also for a name without a container, which Docker's nameserver does not answer here."""
    stack.compose("stop", "nginx")
    try:
        assert sibling.ask("/v1/models").status == 200
        assert unlisted.ask("/v1/models").status == 403
    finally:
        stack.up()


def test_port_is_unreachable_from_outside_the_network(stack: Stack) -> None:
    (container,) = stack.containers()
    found = inspect(container)
    assert not found["HostConfig"]["PortBindings"]
    assert not any(found["NetworkSettings"]["Ports"].values())
    address = found["NetworkSettings"]["Networks"][stack.network]["IPAddress"]
    with caller("bridge") as outsider:
        for base in (f"http://{address}:8000", SERVICE):
            answer = outsider.of(base).ask("/v1/readyz", timeout=3)
            assert answer.status == 0, answer


def test_101st_request_of_a_minute_gets_429(busy: Caller) -> None:
    calls = [{"path": SINGLE, "body": quick()}] * 101
    for _ in range(4):
        answers = busy.ask_all(calls, timeout=30)
        ends = float(answers[-1].headers["x-ratelimit-reset"])
        if {float(answer.headers["x-ratelimit-reset"]) for answer in answers} == {ends}:
            break
        time.sleep(
            max(0.0, ends - time.time()) + 1
        )  # a minute ended meanwhile: wait for a whole one
    assert [answer.status for answer in answers] == [200] * 100 + [429]
    assert answers[-1].code == "RATE_LIMITED"
    assert 0 < int(answers[-1].headers["retry-after"]) <= 60


def test_body_of_11_mb_gets_413(sibling: Caller) -> None:
    answer = sibling.ask(SINGLE, size=11 * 10**6)
    assert (answer.status, answer.code) == (413, "REQUEST_TOO_LARGE")


def test_memory_stays_below_its_limit_under_a_batch_of_64(stack: Stack, sibling: Caller) -> None:
    (container,) = stack.containers()
    items = [quick(512, 8, series_id=f"{n}", overrides={"sample_count": 2}) for n in range(64)]
    answer = sibling.ask("/v1/predict/batch", {"items": items}, timeout=120)
    # A machine may be too slow for the batch; the memory is taken all the same.
    assert answer.status == 200 or answer.code == "PREDICTION_TIMEOUT", answer
    peak = docker("exec", container, "sh", "-c", PEAK)
    assert int(peak) < 3 * GIB
    found = inspect(container)
    assert found["State"]["Running"]
    assert not found["State"]["OOMKilled"]
    assert found["RestartCount"] == 0
    assert sibling.ask("/v1/readyz").status == 200


def test_container_privileges(stack: Stack) -> None:
    limits = {
        "kronos-api": (2.0, 4 * GIB, 256),
        "redis": (0.5, GIB // 8, 64),
        "nginx": (1.0, GIB // 2, 64),
    }
    for service, (cpus, memory, processes) in limits.items():
        (container,) = stack.containers(service)
        found = inspect(container)
        host = found["HostConfig"]
        assert host["ReadonlyRootfs"], service
        assert not host["Privileged"], service
        assert (host["CapDrop"], host["CapAdd"]) == (["ALL"], None), service
        assert host["SecurityOpt"] == ["no-new-privileges:true"], service
        assert (host["NanoCpus"], host["Memory"]) == (int(cpus * 1e9), memory), service
        assert host["PidsLimit"] == processes, service
        assert host["RestartPolicy"]["Name"] == "unless-stopped", service
        assert host["LogConfig"]["Config"] == {"max-size": "10m", "max-file": "5"}, service
        assert found["State"]["Health"]["Status"] == "healthy", service
        status = docker("exec", container, "cat", "/proc/1/status").splitlines()
        told = dict(line.split(":\t") for line in status if ":\t" in line)
        assert set(told["Uid"].split()) != {"0"}, service
        assert int(told["CapEff"], 16) == int(told["CapBnd"], 16) == 0, service
        assert told["NoNewPrivs"].strip() == "1", service
        with pytest.raises(AssertionError, match="Read-only file system"):
            docker("exec", "--user", "0", container, "touch", "/here")


def test_service_container_limits(stack: Stack) -> None:
    (container,) = stack.containers()
    found = inspect(container)
    host = found["HostConfig"]
    assert (found["Config"]["User"], found["Config"]["StopTimeout"]) == ("10001:10001", 100)
    assert (host["MemoryReservation"], host["ShmSize"]) == (2 * GIB, GIB // 8)
    assert list(host["Tmpfs"]) == ["/tmp"]
    mounts = {mount["Destination"]: mount["RW"] for mount in found["Mounts"]}
    assert mounts == {"/models": False, "/keys": False}
    assert docker("exec", container, "id", "-un") == "kronos"


def test_networks_are_isolated(stack: Stack, unlisted: Caller) -> None:
    def networks(service: str) -> set[str]:
        (container,) = stack.containers(service)
        return set(inspect(container)["NetworkSettings"]["Networks"])

    store, edge = f"{stack.project}_store", f"{stack.project}_edge"
    assert networks("kronos-api") == {stack.network, store}
    assert networks("redis") == {store}
    assert networks("nginx") == {stack.network, edge}
    # Who is beside the service cannot reach what counts the calls, by name or by address.
    (container,) = stack.containers("redis")
    address = inspect(container)["NetworkSettings"]["Networks"][store]["IPAddress"]
    for host, reason in (("redis", "gaierror"), (address, "unreachable")):
        answer = unlisted.of(f"http://{host}:6379").ask("/", timeout=3)
        assert answer.status == 0
        assert reason in answer.body or "timed out" in answer.body
