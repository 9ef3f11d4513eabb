"""Alerts fire by their real faults, reach receivers, and clear by the commands of their pages."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from scripts import dashboards
from tests.monitoring.host import Host, section
from tests.monitoring.sandbox import ISOLATED
from tests.monitoring.stack import MISSING, certificate
from tests.monitoring.world import World, configure, listed, running_world
from tests.processes import ROOT
from tests.test_runbooks import PAGES, commands

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
]


QUERY = "monitoring/query "
NO_FAULT_NO_DATA = re.compile("ALERTS")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running_world(tmp_path_factory.mktemp("world")) as running:
        yield running


@pytest.fixture(scope="module")
def host(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with Host(tmp_path_factory.mktemp("host"), world) as running:
        yield running


def test_every_panel_returns_data_under_load(world: World) -> None:
    variables = {"$instance": ".*", "$container": ".*", "$__rate_interval": "6s"}
    queries = [
        (board.name, panel.title, query)
        for board in dashboards.DASHBOARDS
        for panel in board.panels
        for query in panel.queries.values()
    ]

    def empty() -> list[tuple[str, str, str]]:
        assert set(world.ask_all(listed(4))) <= {200, 429}
        return [one for one in queries if not world.stack.query(replaced(one[2], variables))]

    decoding = "sum(rate(kronos_candles_decoded_total[6s])) > 0"
    world.wait(
        lambda: not empty() and bool(world.stack.query(decoding)),
        lambda: f"without data: {empty()}",
    )


def replaced(query: str, variables: dict[str, str]) -> str:
    """`query` with Grafana's variables replaced by values."""
    for name, value in variables.items():
        query = query.replace(name, value)
    return query


def test_queries_of_the_runbooks_are_answered(world: World) -> None:
    """As an operator types them; some have no data while all is well."""
    lines = {line for page in PAGES for line in commands(page) if line.startswith(QUERY)}
    assert len(lines) > 50
    url = f"http://127.0.0.1:{world.stack.port['prometheus']}"

    def run(line: str) -> str:
        environment = os.environ | {"PROMETHEUS_URL": url}
        command = ("sh", "-c", line)
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def empty() -> set[str]:
        """Those without an answer so far."""
        world.ask_all(listed(2))
        with ThreadPoolExecutor(2) as pool:
            answers = dict(zip(lines, pool.map(run, lines), strict=True))
        lines.difference_update(line for line, answer in answers.items() if answer)
        return {line for line in lines if not NO_FAULT_NO_DATA.search(line)}

    world.wait(lambda: not empty(), lambda: f"without data: {empty()}")


def test_watchdog_reaches_its_receiver(world: World) -> None:
    world.wait(lambda: world.received.heartbeats > 2, lambda: "no heartbeat")
    assert "Watchdog" not in world.received.fired


def test_model_does_not_load(world: World, host: Host, tmp_path: Path) -> None:
    stalled = tmp_path / "stalled"
    stalled.touch()
    for replica in world.sandboxes:
        replica.stop_grace = 1  # a load cannot be interrupted
        replica.restart(host.settings | {"PACED_STALLED": str(stalled)})
    world.fire("KronosNotReady")
    world.wait(  # for a scrape in time
        lambda: "kronos_workers{" in host.diagnose("KronosNotReady"), lambda: "no kronos_workers"
    )
    host.mitigate("KronosNotReady", "--rollback")
    world.clear("KronosNotReady")


def test_replicas_hang(world: World, host: Host) -> None:
    first, second = world.sandboxes
    names = list(host.replicas())
    second.pause()
    world.fire("KronosReplicaDown", "KronosReplicaMissing")
    assert f"{names[1]} Up (Paused)" in host.diagnose("KronosReplicaDown")
    first.pause()
    world.fire("KronosDown", "KronosProbeFails")
    host.mitigate("KronosReplicaDown", "unpause", container=names[0])
    world.clear("KronosDown", "KronosProbeFails")
    host.mitigate("KronosReplicaDown", "restart", container=names[1])
    world.clear("KronosReplicaDown", "KronosReplicaMissing")
    mails = [mail for mail in world.received.mails if "KronosDown" in mail]
    assert any("Subject: [CRITICAL] KronosDown" in mail for mail in mails)
    assert "http://docs.example/runbooks/KronosDown/" in re.sub("=\r\n", "", "".join(mails))


def test_slow_failing_and_refused_forecasts(world: World) -> None:
    names = (
        *("KronosTimeouts", "KronosErrors", "KronosLatencyHigh", "KronosOverloaded"),
        *("KronosErrorBudgetFast", "KronosErrorBudgetSlow"),
    )
    # Of 40 at once 16 are above GUNICORN_WORKER_CONNECTIONS, and none ends in 6 s.
    statuses = world.ask_all(listed(40), seconds=9)
    assert set(statuses) == {503, 504}
    world.fire(*names)
    world.clear(*names)  # the callers have stopped
    slow = ("KronosLatencyBudgetFast", "KronosLatencyBudgetSlow")
    assert set(world.ask_all(listed(24), seconds=2.5)) == {200}
    world.fire(*slow)
    world.clear(*slow)


def test_callers_above_their_limit_unlisted_and_unknown(world: World, host: Host) -> None:
    names = ("KronosRateLimitHits", "KronosCallersRefused", "KronosCallersUnknown")

    def call() -> None:
        world.ask_all(["10.1.9.9"] * 120)
        world.ask_all(["203.0.113.9"] * 12)
        world.ask_all([own_neighbour()] * 2)

    world.dns.mode = "silent"
    world.fire(*names, meanwhile=call)
    assert world.ask(own_neighbour()) == 503
    world.dns.mode = "truthful"
    assert world.ask(own_neighbour()) == 403
    assert "RATE_LIMITED" in host.diagnose("KronosRateLimitHits")
    name = world.received.fired["KronosRateLimitHits"]["labels"]["container"]
    assert name == "10.1.0.0/16"
    first, _ = host.replicas()
    block, undo = section("KronosRateLimitHits", "Mitigation")
    host.run(block, container=first, name=name)
    world.wait(lambda: world.ask() == 403, lambda: "the caller is not blocked")

    def resolved() -> bool:
        """Also while the caller goes on."""
        assert set(world.ask_all(["10.1.9.9"] * 4)) == {403}
        return "KronosRateLimitHits" not in world.received.firing()

    world.wait(resolved, lambda: "KronosRateLimitHits still fires")
    host.run(undo, container=first, name=name)
    world.wait(lambda: world.ask() == 200, lambda: "the caller is still blocked")
    world.clear(*names)


def own_neighbour() -> str | None:
    """An address beside this machine's, of which DNS is asked; None: the proxy names none."""
    for addresses in psutil.net_if_addrs().values():
        for one in addresses:
            if one.family is socket.AF_INET and not one.address.startswith("127."):
                head, _, last = one.address.rpartition(".")
                return f"{head}.{int(last) % 250 + 2}"
    return None


def test_redis_ends_and_fills(world: World, host: Host) -> None:
    world.redis.kill()
    world.fire("KronosRedisDown", "KronosRateLimitDegraded", meanwhile=lambda: world.ask())
    assert "redis Exited" in host.diagnose("KronosRedisDown")
    host.mitigate("KronosRedisDown")
    world.clear("KronosRedisDown", "KronosRateLimitDegraded")
    used = int(float(world.stack.query("redis_memory_used_bytes")[0]["value"][1]))
    configure(world.redis, "maxmemory", used + used // 50)
    world.fire("KronosRedisMemoryHigh")
    host.redis_memory *= 2
    host.mitigate("KronosRedisMemoryHigh")
    world.clear("KronosRedisMemoryHigh")


def test_gateway_ends_and_its_certificate_expires(world: World, host: Host) -> None:
    gateway, folder = world.stack.programs["gateway"], world.stack.folder
    gateway.stop()
    world.fire("KronosGatewayDown")
    certificate(folder, "20200101000000Z", "20200201000000Z")
    host.mitigate("KronosGatewayDown")
    world.clear("KronosGatewayDown")  # an expired certificate is no gateway that is down
    world.fire("KronosCertificateExpires")
    assert "notAfter=Feb  1" in host.diagnose("KronosCertificateExpires")
    certificate(folder, "20200101000000Z", "20490101000000Z")
    host.mitigate("KronosCertificateExpires")
    world.clear("KronosCertificateExpires")


def test_parts_of_the_monitoring_fail(world: World, host: Host) -> None:
    exporter = world.stack.programs["redis"]
    exporter.stop()
    world.received.slack_fails = True
    rule = world.stack.rules / "wrong.yml"
    rule.write_text(
        "groups: [{name: wrong, rules: [{record: wrong, expr: 'up + on () group_left () up'}]}]"
    )
    world.wait(lambda: bool(world.stack.query("redis_up")), lambda: "Prometheus is not up")
    world.stack.reload()
    names = ("KronosMonitoringTargetDown", "KronosAlertsUndelivered", "KronosRulesFailing")
    world.fire(*names)
    assert "many-to-many" in host.diagnose("KronosRulesFailing")
    host.mitigate("KronosMonitoringTargetDown")
    world.received.slack_fails = False
    rule.unlink()
    host.mitigate("KronosRulesFailing")
    world.clear(*names)
    # What failed before is sent again.
    world.wait(lambda: bool(world.received.slack), lambda: "nothing in Slack")


def test_workers_die_and_restart_again_and_again(world: World, host: Host) -> None:
    service = world.replicas[1]

    def kill() -> None:
        for worker in service.workers():
            psutil.Process(worker).kill()
        ready = len(service.lines("model_ready"))
        service.wait_for("model_ready", ready + 1)

    world.fire("KronosWorkerDied", "KronosRestartLoop", meanwhile=kill)
    assert "SIGKILL" in host.diagnose("KronosWorkerDied")
    world.clear("KronosWorkerDied", "KronosRestartLoop")
    fired = world.received.fired["KronosWorkerDied"]
    assert fired["labels"]["instance"] == f"127.0.0.1:{service.port}"
    assert fired["annotations"]["container"] == socket.gethostname()


@pytest.mark.skipif(not ISOLATED, reason="needs root, and control groups of version 1")
def test_memory_disks_and_descriptors_are_used_up(world: World, host: Host) -> None:
    names = ("KronosMemoryHigh", "KronosMetricsDirectoryFull", "KronosFileDescriptorsHigh")
    replica = world.sandboxes[1]
    replica.fill_shm()
    replica.fill_disk()

    def use_up() -> None:
        """Again each time, as a young worker grows, and one that the kernel kills is replaced."""
        replica.limit_memory()
        for worker in replica.service.workers():
            replica.limit_descriptors(worker)
        world.ask(replica=1)

    world.fire(*names, "KronosLogLinesLost", meanwhile=use_up)
    _, second = host.replicas()
    assert " other" in host.run(
        next(one for one in section("KronosMetricsDirectoryFull", "Diagnosis") if "df" in one),
        container=second,
    )
    assert "100%" in host.diagnose("KronosLogLinesLost")
    host.mitigate("KronosLogLinesLost", container=second)
    host.settings |= {"MEMORY_LIMIT": "1G", "SHM_SIZE": "64m"}
    host.mitigate("KronosMemoryHigh", "deploy.sh")
    world.clear(*names, "KronosLogLinesLost")


def test_no_text_of_an_alert_is_broken(world: World) -> None:
    """Last: of all alerts that have fired before."""
    for name, alert in world.received.fired.items():
        for text in alert["annotations"].values():
            assert "<error" not in text, name
            assert "{{" not in text, name
        assert not {"grafana", "runbooks"} & set(alert["labels"])
