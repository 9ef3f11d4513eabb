"""The running service among hosts with addresses of their own, a nameserver and a real nginx."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from tests.security.dns import Nameserver, answering
from tests.security.hosts import OUTER, PREFIX, PREFIX6, Connection, Host, hosts, missing, run

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parents[2]
UNKNOWN = "CALLER_UNKNOWN"
SERVICE, SERVICE6, PORT = f"{PREFIX}.2", f"{PREFIX6}:2", 8000
NUMBERS = {
    "service": 2,
    "web1": 11,
    "web2": 12,
    "web3": 13,
    "job": 20,
    "listed": 40,
    "unlisted": 66,
    "nginx": 80,
}
FORGED = {
    "X-Container-Name": "shop-job-1",
    "X-Forwarded-For": f"{PREFIX}.20",
    "X-Real-IP": f"{PREFIX}.20",
    "Forwarded": f"for={PREFIX}.20",
}
NGINX = """
daemon off; user root; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream service {{ server {address}:{port}; keepalive 4; }}
  server {{
    listen 80;
    location / {{
      proxy_pass http://service;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header X-Forwarded-For $remote_addr;
    }}
  }}
}}
"""


class Town:
    """The hosts, their nameserver, and what the service on one of them answers to the others."""

    def __init__(self, at: dict[str, Host], dns: Nameserver) -> None:
        self.at = at
        self.dns = dns

    def ask(
        self,
        name: str,
        headers: dict[str, str] | None = None,
        *,
        to: tuple[str, int] = (SERVICE, PORT),
        path: str = "/v1/models",
        source: str | None = None,
        asks: int = 5,
    ) -> tuple[int, Connection]:
        """The status of the first answer over a new connection, and that connection.

        `asks`: attempts, at most, while DNS does not identify the caller within its 250 ms.
        """
        for left in reversed(range(asks)):
            connection = self.at[name].connect(*to, source=source)
            connection.request("GET", path, headers=headers or {})
            answer = connection.getresponse()
            content = answer.read()
            unknown = answer.status == 503 and json.loads(content)["error"]["code"] == UNKNOWN
            if not (unknown and left):
                break
            connection.close()
        return answer.status, connection

    def status(self, name: str, headers: dict[str, str] | None = None, **more: Any) -> int:
        """The status only; `more` as in `ask`."""
        status, connection = self.ask(name, headers, **more)
        connection.close()
        return status


def name_everyone(dns: Nameserver) -> None:
    """What the nameserver says while all is well."""
    dns.mode = "truthful"
    dns.modes.clear()
    dns.forward.clear()
    dns.reverse.clear()
    for form in (f"{PREFIX}.%d", f"{PREFIX6}:%d"):
        dns.container("api", form % 2)
        for number in (1, 2, 3):
            dns.container(f"shop-web-{number}", form % (10 + number), "web", "www")
        dns.container("shop-job-1", form % 20, "job")
        dns.container("unlisted", form % 66)
    dns.container("web", f"{OUTER}.10")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    if reason := missing():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("service")
    with hosts(NUMBERS) as at:
        listener = at["hub"].socket(socket.AF_INET, socket.SOCK_DGRAM)
        listener.bind((f"{PREFIX}.1", 53))
        with answering(listener) as dns:
            name_everyone(dns)
            with service(at["service"], folder / "log"):
                yield Town(at, dns)


@contextmanager
def service(host: Host, log: Path) -> Iterator[None]:
    """`kronos-api serve` on `host`, on all its addresses, IPv4 and IPv6."""
    settings = {
        "KRONOS_HOST": "::",
        "KRONOS_PORT": str(PORT),
        "KRONOS_CONTAINER_WHITELIST": f"web,shop-job-1,{PREFIX}.40,{PREFIX6}:40,localhost",
        "KRONOS_TRUSTED_PROXIES": f"{PREFIX}.80",
        "KRONOS_DNS_SERVERS": f"{PREFIX}.1",
        "KRONOS_TORCH_THREADS": "1",
    }
    command = host.command(sys.executable, "-m", "kronos_api", "serve")
    with log.open("w") as output:
        process = subprocess.Popen(
            command, cwd=log.parent, env=os.environ | settings, stdout=output
        )
    try:
        deadline = time.monotonic() + 180
        while not ready(host):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield
    finally:
        process.terminate()
        process.wait(60)


def ready(host: Host) -> bool:
    try:
        connection = host.connect("127.0.0.1", PORT)
    except OSError:
        return False
    try:
        return connection.status("/v1/readyz") == 200
    finally:
        connection.close()


def listens(host: Host, port: int) -> bool:
    try:
        host.connect("127.0.0.1", port).close()
    except OSError:
        return False
    return True


@pytest.fixture
def town(running: Town) -> Town:
    """All containers at their addresses, and no answer cached from an earlier test."""
    name_everyone(running.dns)
    time.sleep(2.05)
    return running


@pytest.fixture(scope="module")
def nginx(running: Town, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an nginx that overwrites X-Forwarded-For."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        pytest.skip("needs nginx (Debian: nginx-light)")
    folder = tmp_path_factory.mktemp("nginx")
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, address=SERVICE, port=PORT))
    process = subprocess.Popen(running.at["nginx"].command(program, "-c", str(config)))
    try:
        deadline = time.monotonic() + 180
        while not listens(running.at["nginx"], 80):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield f"{PREFIX}.80"
    finally:
        process.terminate()
        process.wait(10)


def test_callers_are_identified_by_address(town: Town) -> None:
    allowed = {"web1", "web2", "web3", "job", "listed"}
    for name in (*allowed, "unlisted", "nginx", "outsider", "hub"):
        assert town.status(name) == (200 if name in allowed else 403), name
    assert ip_address(f"{OUTER}.10").reverse_pointer not in town.dns.asked


def test_callers_are_identified_by_ipv6_address(town: Town) -> None:
    for name, status in (("web1", 200), ("job", 200), ("listed", 200), ("unlisted", 403)):
        assert town.status(name, to=(SERVICE6, PORT)) == status, name


def test_alias_identifies_the_container_that_has_it(town: Town) -> None:
    assert town.status("unlisted") == 403
    town.dns.forward["web"].append(f"{PREFIX}.66")
    time.sleep(2.05)
    assert town.status("unlisted") == 200


def test_headers_cannot_name_the_caller(town: Town) -> None:
    assert town.status("unlisted", FORGED) == 403
    assert town.status("outsider", FORGED) == 403
    assert town.status("job", {**FORGED, "X-Forwarded-For": f"{PREFIX}.66"}) == 200


def test_exempt_paths_are_open_to_unlisted_callers(town: Town) -> None:
    for path, status in (("/health", 200), ("/metrics", 200), ("/docs", 403), ("/no", 403)):
        assert town.status("unlisted", path=path) == status, path


def test_reassigned_address_is_refused(town: Town) -> None:
    """A container is removed; an unlisted one takes its address, before any time to live.

    It connects at once, while the answer that named the container is still in use.
    """
    assert town.status("web1") == 200
    run(f"ip -n {town.at['web1'].name} link set eth0 down")
    town.dns.remove(f"{PREFIX}.11")
    removed = time.monotonic()
    run(f"ip -n {town.at['unlisted'].name} addr add {PREFIX}.11/24 dev eth0")
    run(f"ip -n {town.at['service'].name} neigh flush all")
    try:
        kept = town.at["unlisted"].connect(SERVICE, PORT, source=f"{PREFIX}.11")
        allowed = 0
        while (status := kept.status()) == 200:
            allowed += 1
            assert time.monotonic() - removed < 30, "the kept connection is still allowed"
            time.sleep(0.05)
        assert status == 403, allowed
        kept.close()
        time.sleep(max(0.0, removed + 2.0 - time.monotonic()))
        assert town.status("unlisted", source=f"{PREFIX}.11") == 403
    finally:
        run(f"ip -n {town.at['unlisted'].name} addr del {PREFIX}.11/24 dev eth0")
        run(f"ip -n {town.at['web1'].name} link set eth0 up")
        run(f"ip -n {town.at['web1'].name} route replace default via {PREFIX}.1")
        run(f"ip -n {town.at['service'].name} neigh flush all")


def test_dns_answer_outside_our_subnets_is_ignored(town: Town) -> None:
    town.dns.forward["web"] = [f"{OUTER}.10"]
    assert town.status("outsider") == 403
    assert town.status("web1") == 403


@pytest.mark.parametrize("mode", ["servfail", "silent"])
def test_unavailable_nameserver_gets_503(town: Town, mode: str) -> None:
    """Confirmed connections go on, new ones get 503, and other callers are not delayed."""
    status, confirmed = town.ask("web1")
    assert status == 200
    time.sleep(2.05)
    town.dns.mode = mode  # type: ignore[assignment]
    for name in ("web2", "unlisted"):
        assert town.status(name, asks=1) == 503
    asking = [town.at[name].connect(SERVICE, PORT) for name in ("web2", "web3", "job", "unlisted")]
    for one in asking:
        one.request("GET", "/v1/models")
    assert confirmed.status() == 200
    assert town.status("listed") == 200
    assert [one.getresponse().status for one in asking] == [503] * 4
    for one in (*asking, confirmed):
        one.close()
    metrics = town.at["hub"].connect(SERVICE, PORT)
    metrics.request("GET", "/metrics")
    text = metrics.getresponse().read().decode()
    metrics.close()
    assert 'kronos_security_events_total{container="other",event="unknown"}' in text


def test_proxy_header_counts_from_the_proxy_only(town: Town, nginx: str) -> None:
    statuses = {
        name: town.status(name, headers, to=(nginx, 80))
        for name, headers in (("web1", None), ("job", FORGED), ("unlisted", None))
    }
    assert statuses == {"web1": 200, "job": 200, "unlisted": 403}
    # nginx overwrites the header, and the service ignores it from other peers.
    assert town.status("unlisted", FORGED, to=(nginx, 80)) == 403
    assert town.status("unlisted", FORGED) == 403
    assert town.status("nginx") == 403


def test_one_connection_of_nginx_serves_several_callers(town: Town, nginx: str) -> None:
    for _ in range(3):
        assert town.status("web1", to=(nginx, 80)) == 200
        assert town.status("unlisted", to=(nginx, 80)) == 403
