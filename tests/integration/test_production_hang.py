"""One of two replicas hangs behind the gateway: it takes connections and answers nothing."""

from __future__ import annotations

import pytest

from tests.integration.rolling import CALLERS, Deployment, load
from tests.integration.stack import docker, until

pytestmark = pytest.mark.docker


def test_unresponsive_replica_is_taken_out_of_rotation(deployment: Deployment) -> None:
    (gateway,) = deployment.stack.containers("nginx")
    replica = next(iter(deployment.replicas()))

    def logged(event: str) -> bool:
        return f'"event":"{event}"' in docker("logs", gateway)

    with load(deployment.port) as calls:
        calls.reaches(100)
        docker("pause", replica)
        try:
            until(lambda: logged("replica_unresponsive"), 120, "the replica is left out")
            calls.reaches(calls.made + 50 * CALLERS)
        finally:
            docker("unpause", replica)
        until(lambda: logged("replica_recovered"), 120, "the replica is back")
        calls.reaches(calls.made + 10 * CALLERS)
    # A caller that waits as long as a forecast may take gets 504. Callers lose at most the request
    # that the replica had, and one when nginx is reloaded.
    assert all("RemoteDisconnected" in failure for failure in calls.failures), calls.failures
    assert calls.failures.total() <= 2 * CALLERS, calls.failures


def test_unresponsive_replicas_return_to_rotation_when_they_recover(deployment: Deployment) -> None:
    (gateway,) = deployment.stack.containers("nginx")
    replicas = list(deployment.replicas())

    def missed() -> bool:
        counts = docker("exec", gateway, "sh", "-c", "cat /tmp/gateway/replicas/*")
        return counts.split() == ["7"] * len(replicas)

    before = docker("exec", gateway, "cat", "/tmp/gateway/upstream.conf")
    for replica in replicas:
        docker("pause", replica)
    try:
        until(missed, 120, "no replica answers")
    finally:
        for replica in replicas:
            docker("unpause", replica)
    until(
        lambda: docker("exec", gateway, "cat", "/tmp/gateway/upstream.conf") == before,
        120,
        "the service is asked by its name",
    )
    with load(deployment.port) as calls:
        calls.reaches(100)
    assert not calls.failures
