"""The gateway: TLS in front of the service, its own refusals, and what it does not let through."""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from http.client import HTTPConnection
from urllib.request import HTTPSHandler, ProxyHandler, build_opener

import pytest

from tests.integration.stack import BODY, Caller, Stack, caller, docker, inspect, run

pytestmark = pytest.mark.docker

SINGLE = "/v1/predict/single"
GATEWAY = "https://nginx:8443"
IMPATIENT = """
cp -r /tmp/gateway /tmp/impatient
sed -i 's/proxy_read_timeout .*/proxy_read_timeout 1s;/' /tmp/impatient/http.conf
sed -i 's/8443/9443/' /tmp/impatient/tls.conf
sed 's/808/908/; s,/tmp/gateway/,/tmp/impatient/,; s,/tmp/nginx.pid,/tmp/impatient.pid,' \
    /etc/nginx/nginx.conf > /tmp/impatient.conf
nginx -c /tmp/impatient.conf
"""
"""A second gateway in the same container, on port 9443."""


def test_forecast_over_tls(sibling: Caller) -> None:
    answer = sibling.of(GATEWAY).ask(SINGLE, BODY, headers={"X-Request-ID": "mine.1"})
    assert answer.status == 200, answer
    assert len(answer.body["prediction"]) == 24
    assert answer.headers["x-request-id"] == "mine.1"


def test_caller_is_the_client_of_the_gateway(unlisted: Caller) -> None:
    for forged in ({}, {"X-Forwarded-For": "127.0.0.1"}, {"X-Real-IP": "127.0.0.1"}):
        answer = unlisted.of(GATEWAY).ask(SINGLE, BODY, headers=forged)
        assert (answer.status, answer.code) == (403, "CONTAINER_NOT_ALLOWED")


@pytest.mark.parametrize("path", ["/metrics", "/v1/metrics", "//metrics", "/v1/healthz/detailed"])
def test_operator_routes_are_not_published(sibling: Caller, path: str) -> None:
    answer = sibling.of(GATEWAY).ask(path)
    assert (answer.status, answer.code) == (404, "NOT_FOUND")


def test_gateway_errors_use_the_envelope(sibling: Caller) -> None:
    gateway = sibling.of(GATEWAY)
    refusals = [
        (gateway.ask(SINGLE, size=11 * 2**20), 413, "REQUEST_TOO_LARGE"),
        (gateway.ask("/", headers={"X-Long": "x" * 17_000}), 431, "HEADERS_TOO_LARGE"),
        (gateway.ask("/" + "x" * 17_000), 414, "HEADERS_TOO_LARGE"),
        (gateway.ask("/", method="TRACE"), 405, "METHOD_NOT_ALLOWED"),
        (sibling.of("http://nginx:8443").ask("/"), 400, "MALFORMED_REQUEST"),
    ]
    for answer, status, code in refusals:
        assert (answer.status, answer.code) == (status, code)
        error = answer.body["error"]
        assert set(error) == {"code", "message", "details", "request_id"}
        assert re.fullmatch(r"[0-9a-f]{32}", error["request_id"])
        assert answer.headers["x-request-id"] == error["request_id"]
        assert answer.headers["content-type"] == "application/json"


def test_published_ports_reach_the_gateway(stack: Stack) -> None:
    https, http = (
        int(stack.env[f"KRONOS_{name}_PORT"].rpartition(":")[2]) for name in ("HTTPS", "HTTP")
    )
    context = ssl.create_default_context(cafile=f"{stack.env['KRONOS_TLS_DIR']}/fullchain.pem")
    opener = build_opener(ProxyHandler({}), HTTPSHandler(context=context))
    with opener.open(f"https://localhost:{https}/v1/readyz", timeout=30) as answer:
        assert answer.status == 200
    plain = HTTPConnection("127.0.0.1", http, timeout=30)
    plain.request("POST", f"{SINGLE}?a=b", headers={"Host": "kronos.example"})
    redirect = plain.getresponse()
    assert (redirect.status, redirect.headers["Location"]) == (
        308,
        f"https://kronos.example:{https}{SINGLE}?a=b",
    )
    plain.close()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_versions(stack: Stack, version: ssl.TLSVersion) -> None:
    context = ssl.create_default_context(cafile=f"{stack.env['KRONOS_TLS_DIR']}/fullchain.pem")
    context.minimum_version = context.maximum_version = version
    port = stack.env["KRONOS_HTTPS_PORT"].rpartition(":")[2]
    opener = build_opener(ProxyHandler({}), HTTPSHandler(context=context))
    with opener.open(f"https://localhost:{port}/v1/healthz", timeout=30) as answer:
        assert answer.status == 200


@pytest.mark.parametrize("instead", ["absent", "silent"])
def test_gateway_without_a_replica_answers_503(stack: Stack, sibling: Caller, instead: str) -> None:
    stack.compose("stop", "kronos-api")
    try:
        with _silent(stack) if instead == "silent" else nullcontext():
            answer = sibling.of(GATEWAY).ask("/v1/readyz")
    finally:
        stack.up()
    assert (answer.status, answer.code) == (503, "SERVICE_UNAVAILABLE")
    assert answer.headers["retry-after"] == "1"
    assert sibling.of(GATEWAY).ask("/v1/readyz").status == 200


@contextmanager
def _silent(stack: Stack) -> Iterator[None]:
    """Have the service's name stand for an address that answers nothing, as one just left does."""
    with caller(stack.network, "kronos-api") as machine:
        process = inspect(machine.container)["State"]["Pid"]
        run("nsenter", "--net", "--target", str(process), "ip", "link", "set", "eth0", "down")
        time.sleep(3)  # what nginx remembers of the name
        yield


def test_unresponsive_replica_is_distinguished_from_none(stack: Stack, sibling: Caller) -> None:
    (gateway,), (replica,) = stack.containers("nginx"), stack.containers()
    docker("exec", gateway, "sh", "-ec", IMPATIENT)
    docker("pause", replica)
    try:
        answer = sibling.of("https://nginx:9443").ask("/v1/readyz")
    finally:
        docker("unpause", replica)
    assert (answer.status, answer.code) == (504, "PREDICTION_TIMEOUT")
    assert "retry-after" not in answer.headers
    docker("exec", gateway, "nginx", "-c", "/tmp/impatient.conf", "-s", "stop")
