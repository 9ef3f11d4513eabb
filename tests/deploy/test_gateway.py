"""The gateway by this machine's nginx: TLS, HTTP/2, limits, headers and its own refusals."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from tests.gateway import SOURCE, Gateway, gateway, needs_nginx
from tests.processes import run, until

pytestmark = [pytest.mark.process, needs_nginx]

NAME: Final = "api.example.com"
BURST: Final = 30
SECURITY: Final = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "x-xss-protection": "0",
}

_number = itertools.count(1)


class Replica(BaseHTTPRequestHandler):
    """Answers 200 with what it saw, and one of the headers that the gateway sets."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        seen = {
            "path": self.path,
            "headers": dict(self.headers),
            "size": len(self.rfile.read(length)),
        }
        text = json.dumps(seen).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(text)

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""


class Server(ThreadingHTTPServer):
    """With a queue for the connections of a burst."""

    request_queue_size = 256


def issue(folder: Path, number: int) -> None:
    """Have `folder` hold the certificate of that number, in certbot's layout."""
    live, archive = folder / "live" / NAME, folder / "archive" / NAME
    live.mkdir(parents=True, exist_ok=True)
    run(SOURCE / "self-signed", archive / "new", NAME)
    for kind in ("privkey", "fullchain"):
        (archive / "new" / f"{kind}.pem").rename(archive / f"{kind}{number}.pem")
        link = live / f"{kind}.next"
        link.symlink_to(f"../../archive/{NAME}/{kind}{number}.pem")
        link.replace(live / f"{kind}.pem")


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with small limits and certbot's folder, before one replica."""
    folder = tmp_path_factory.mktemp("gateway")
    issue(folder / "tls", 1)
    server = Server(("127.0.0.1", 0), Replica)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    settings = {
        "KRONOS_TLS_NAME": NAME,
        "KRONOS_MAX_REQUEST_SIZE_MB": "0.01",
        "KRONOS_BODY_TIMEOUT": "0.5",
        "KRONOS_GATEWAY_RATE": "1",
        "KRONOS_GATEWAY_BURST": str(BURST),
    }
    try:
        with gateway(folder, server.server_port, **settings) as found:
            yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def client(proxy: Gateway, address: str) -> httpx.Client:
    """A client at an address of the loopback, which has limits of its own."""
    transport = httpx.HTTPTransport(verify=False, local_address=address)
    return httpx.Client(base_url=proxy.url, transport=transport, timeout=60)


def refusal(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The error in the envelope of a refusal."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"code", "message", "details", "request_id"}
    assert error["code"] == code
    assert response.headers["x-request-id"] == error["request_id"]
    return error


@pytest.mark.parametrize(
    ("version", "served"),
    [
        (ssl.TLSVersion.TLSv1, False),
        (ssl.TLSVersion.TLSv1_1, False),
        (ssl.TLSVersion.TLSv1_2, True),
        (ssl.TLSVersion.TLSv1_3, True),
    ],
)
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_tls_is_1_2_or_1_3(proxy: Gateway, version: ssl.TLSVersion, served: bool) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")  # as a client that still speaks them
    context.minimum_version = context.maximum_version = version
    with socket.create_connection(("127.0.0.1", proxy.https)) as link:
        if served:
            with context.wrap_socket(link) as tls:
                assert tls.version() == version.name.replace("_", ".")
        else:
            with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
                context.wrap_socket(link)


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_http_2_reaches_the_service(proxy: Gateway) -> None:
    curl = ("curl", "--silent", "--insecure", "--http2", "--interface", "127.0.0.2")
    shown = ("--write-out", "\n%{http_version} %{http_code} %header{x-request-id}")
    said = run(*curl, *shown, "--data", "{}", f"{proxy.url}/v1/predict/single")
    seen, _, protocol = said.rpartition("\n")
    request = json.loads(seen)["headers"]
    assert request["Host"] == f"localhost:{proxy.https}"
    assert request["X-Forwarded-For"] == "127.0.0.2"
    assert protocol == f"2 200 {request['X-Request-ID']}"
    said = run(*curl, *shown, "--data", "x" * 20_000, f"{proxy.url}/v1/predict/single")
    assert json.loads(said.rpartition("\n")[0])["error"]["code"] == "REQUEST_TOO_LARGE"
    assert "\n2 413 " in said
    said = run(*curl, *shown, f"{proxy.url}/%zz")
    assert "not valid HTTP, such as a path with %zz" in said
    assert "\n2 400 " in said


def test_each_response_has_the_security_headers_once(proxy: Gateway) -> None:
    with client(proxy, "127.0.0.3") as ask:
        responses = [
            ask.get("/v1/models"),
            ask.get("/metrics"),
            ask.post("/v1/predict/single", content=b"x" * 20_000),
            ask.request("TRACE", "/"),
            ask.get("/", headers={"X-Long": "x" * 17_000}),
            ask.get(f"http://localhost:{proxy.https}/"),
        ]
        plain = ask.post(f"http://localhost:{proxy.http}/v1/predict/single?a=b")
    assert [response.status_code for response in responses] == [200, 404, 413, 405, 431, 400]
    assert (plain.status_code, plain.headers["location"]) == (
        308,
        f"{proxy.url}/v1/predict/single?a=b",
    )
    for response in (*responses, plain):
        for name, value in SECURITY.items():
            assert response.headers.get_list(name) == [value], response
        assert re.fullmatch("[0-9a-f]{32}", response.headers["x-request-id"])
        assert "retry-after" not in response.headers
    for response in responses[:5]:
        assert response.headers["strict-transport-security"] == "max-age=31536000"
    assert "strict-transport-security" not in plain.headers
    messages = {
        "REQUEST_TOO_LARGE": "The body exceeds 0.01 MB.",
        "MALFORMED_REQUEST": "Malformed request: HTTP over TLS is expected on this port.",
    }
    for response in (responses[2], responses[5]):
        error = refusal(response, response.status_code, response.json()["error"]["code"])
        assert error["message"] == messages[error["code"]]


def test_requests_above_the_rate_get_429_and_probes_do_not(proxy: Gateway) -> None:
    address = f"127.0.1.{next(_number)}"  # another when the test is run again
    if shutil.which("ab") is None:
        pytest.skip("needs ab (Debian: apache2-utils)")
    load = ("ab", "-q", "-k", "-n", "200", "-c", "20", "-B", address, "-H", "Accept: */*")
    said = run(*load, f"{proxy.url.replace('localhost', '127.0.0.1')}/v1/models")
    assert "Complete requests:      200" in said

    def logged(status: int) -> int:
        lines = proxy.log.splitlines()
        return sum(f'"{address}"' in line and f'"status":{status}' in line for line in lines)

    until(lambda: logged(200) + logged(429) == 200)
    # One passes, then the burst, then one a second.
    assert 1 + BURST <= logged(200) < 200
    with client(proxy, address) as ask:
        answers = [ask.get("/v1/models") for _ in range(BURST + 2)]
        probes = [ask.get("/v1/readyz") for _ in range(BURST + 10)]
    error = refusal(answers[-1], 429, "RATE_LIMITED")
    assert error["message"].startswith("Too many requests from this address: 1 per second and 30 ")
    assert answers[-1].headers["retry-after"] == "1"
    assert answers[-1].headers["x-content-type-options"] == "nosniff"
    assert {probe.status_code for probe in probes} == {200}
    assert "/v1/readyz" not in proxy.log


def test_upload_that_stalls_is_closed(proxy: Gateway) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    link = socket.create_connection(("127.0.0.1", proxy.https), 60, ("127.0.0.5", 0))
    with closing(context.wrap_socket(link)) as tls, suppress(ConnectionResetError, ssl.SSLError):
        tls.sendall(b"POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n{")
        assert tls.recv(1) == b""
    until(lambda: '"POST /slow HTTP/1.1","status":408' in proxy.log)


def test_renewed_certificate_is_served_without_a_restart(proxy: Gateway) -> None:
    def served() -> str:
        return ssl.get_server_certificate(("127.0.0.1", proxy.https), timeout=60)

    def rejected(times: int) -> bool:
        return proxy.log.count("certificate_rejected") >= times

    folder = proxy.folder / "tls"
    first = served()
    # A key that is not the certificate's is not taken, also one that nginx takes; the pair stays.
    key = folder / "live" / NAME / "privkey.pem"
    link = key.readlink()
    curve = ("EC", "-pkeyopt", "ec_paramgen_curve:P-256")
    for count, kind in enumerate((curve, ("RSA",)), start=1):
        new = key.with_suffix(".new")
        run("openssl", "genpkey", "-algorithm", *kind, "-out", new)
        new.replace(key)
        until(partial(rejected, count))
        assert served() == first
    key.unlink()
    key.symlink_to(link)
    issue(folder, 2)
    until(lambda: served() == (folder / "live" / NAME / "fullchain.pem").read_text() != first)
    assert "certificate_loaded" in proxy.log


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("KRONOS_GATEWAY_RATE", "0.5", "must be a whole number from 1 to 100000, such as 100"),
        ("KRONOS_REQUEST_TIMEOUT", "1m", "must be a number from 0.001 to 86400, such as 60"),
        ("KRONOS_TLS_NAME", "../etc", "must be a name in the folder live"),
    ],
)
def test_invalid_setting_is_named(tmp_path: Path, name: str, value: str, reason: str) -> None:
    done = subprocess.run(
        [SOURCE / "settings", tmp_path], env={"PATH": "/usr/bin:/bin", name: value},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert f"{name} is '{value}'; it {reason}" in done.stderr
    assert list(tmp_path.iterdir()) == []
