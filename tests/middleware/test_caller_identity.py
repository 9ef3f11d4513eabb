"""Allowed callers: by the peer's address, through a proxy, and with forged headers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from socket import AF_INET
from types import SimpleNamespace
from typing import Any

import httpx
import psutil
import pytest
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from kronos_api.app import create_app
from kronos_api.config import Settings
from kronos_api.middleware.caller_identity import CallerIdentity
from kronos_api.security import resolver
from kronos_api.security.callers import Caller, Connection
from kronos_api.security.identity import Identity
from kronos_api.security.resolver import FRESH_SECONDS
from kronos_api.security.whitelist import Whitelist
from kronos_api.telemetry.metrics import metrics
from tests.security.dns import Nameserver, answering
from tests.web import client_of, predictor_of, serving

UNLISTED = "203.0.113.9"
FORGED = {
    "X-Container-Name": "localhost",
    "X-Forwarded-For": "127.0.0.1",
    "X-Real-IP": "127.0.0.1",
    "Forwarded": "for=127.0.0.1",
    "Host": "localhost",
}


def events(event: str, container: str = "other") -> float:
    labels = {"event": event, "container": container}
    return metrics.registry.get_sample_value("kronos_security_events_total", labels) or 0


class From:
    """The service as a caller at `address` sees it, over one connection if it has one."""

    def __init__(
        self, app: ASGIApp, address: str | None, connection: Connection | None = None
    ) -> None:
        self.app = app
        self.client = (address, 4711) if address else None
        self.connection = connection

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        state = {"connection": self.connection} if self.connection else {}
        await self.app({**scope, "client": self.client, "state": state}, receive, send)


def patient(**settings: Any) -> Settings:
    """Settings with more time for DNS than is accepted, for a busy machine."""
    return Settings(**settings).model_copy(update={"dns_timeout": 60.0})


@asynccontextmanager
async def calling(
    address: str | None, connection: Connection | None = None, **settings: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """A client at `address`."""
    app = create_app(patient(**settings), predictor=predictor_of())
    async with client_of(From(app, address, connection)) as client:
        yield client


async def status(address: str | None, path: str = "/", **options: Any) -> int:
    headers = options.pop("headers", {})
    async with calling(address, **options) as client:
        return (await client.get(path, headers=headers)).status_code


@pytest.mark.parametrize(
    ("whitelist", "address", "allowed"),
    [
        (None, "127.0.0.1", True),
        (None, "::1", True),
        (None, "::ffff:127.0.0.1", True),
        (None, "10.0.0.1", False),
        ("10.0.0.0/8", "10.0.0.1", True),
        ("10.0.0.0/8", "::ffff:10.0.0.1", True),
        ("10.0.0.0/8", "127.0.0.1", False),
        ("fd00::1", "fd00::1", True),
        ("fd00::1", "fd00::2", False),
        (None, None, False),
        (None, "/run/socket", False),
    ],
)
async def test_allowed_callers(whitelist: str | None, address: str | None, allowed: bool) -> None:
    settings = {} if whitelist is None else {"container_whitelist": whitelist}
    assert await status(address, **settings) == (200 if allowed else 403)


async def test_refusal_is_counted_and_logged(capsys: pytest.CaptureFixture[str]) -> None:
    before = events("refused")
    async with calling(UNLISTED) as client:
        response = await client.post("/v1/predict/single", content=b"x", headers=FORGED)
    assert response.status_code == 403
    error = response.json()["error"]
    assert (error["code"], error["request_id"]) == (
        "CONTAINER_NOT_ALLOWED",
        response.headers["X-Request-ID"],
    )
    assert response.headers["Connection"] == "close"
    assert "KRONOS_CONTAINER_WHITELIST" in error["message"]
    assert UNLISTED not in response.text
    assert events("refused") == before + 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    (refused,) = (line for line in lines if line["event"] == "caller_refused")
    assert (refused["peer"], refused["path"]) == (UNLISTED, "/v1/predict/single")
    assert refused["request_id"] == error["request_id"]


async def test_a_caller_is_named_in_its_lines(capsys: pytest.CaptureFixture[str]) -> None:
    before = events("allowed", "10.0.0.0/8")
    assert await status("10.0.0.1", container_whitelist="10.0.0.0/8") == 200
    assert events("allowed", "10.0.0.0/8") == before + 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    (line,) = (line for line in lines if line["event"] == "request")
    assert line["container_name"] == "10.0.0.0/8"


async def test_without_security_callers_are_identified_by_address() -> None:
    seen: list[Any] = []

    async def app(scope: Scope, *_: object) -> None:
        seen.append(scope["state"]["caller"])

    no_proxies = Identity(Whitelist())
    guard = CallerIdentity(app, allowed=None, proxies=no_proxies, exempt=())
    scope: Scope = {"type": "http", "path": "/", "client": (UNLISTED, 1)}
    await guard(scope, None, None)  # type: ignore[arg-type]
    assert seen == [Caller("other", UNLISTED)]
    assert await status(UNLISTED, security_enabled=False) == 200


def routes() -> list[tuple[str, str]]:
    """Method and path of all routes, the framework's own among them."""
    app = create_app(Settings(), predictor=predictor_of())
    found = []
    pending = list(app.routes)
    while pending:
        route: Any = pending.pop()
        if isinstance(route, Route):
            found += [(method, route.path) for method in sorted(route.methods or ())]
        else:
            pending += route.original_router.routes
    return found


def test_all_routes_are_walked() -> None:
    app = create_app(Settings(), predictor=predictor_of())
    assert {path for _, path in routes()} >= set(app.openapi()["paths"]) | {
        "/docs",
        "/openapi.json",
    }


@pytest.mark.parametrize(("method", "path"), [*routes(), ("GET", "/no"), ("PUT", "/v1/predict/x")])
async def test_every_route_refuses_unlisted_callers_or_is_exempt(method: str, path: str) -> None:
    exempt = Settings().exempt_paths
    async with calling(UNLISTED) as client:
        answered = (await client.request(method, path, headers=FORGED)).status_code
    assert (answered == 403) != (path in exempt)
    assert await status(UNLISTED, path, security_exempt_paths="none") == 403


@pytest.mark.parametrize("path", ["/health/", "//health", "/HEALTH", "/health%2f"])
async def test_exempt_paths_are_compared_exactly(path: str) -> None:
    assert await status(UNLISTED, path) == 403


PROXY = "10.0.0.80"


@pytest.mark.parametrize(
    ("peer", "forwarded", "allowed"),
    [
        (PROXY, ["10.0.0.1"], True),
        (PROXY, ["10.0.0.2"], False),
        (PROXY, ["10.0.0.2, 10.0.0.1"], True),
        (PROXY, ["10.0.0.1, 10.0.0.2"], False),
        (PROXY, ["10.0.0.1", "10.0.0.2"], False),
        (PROXY, ["10.0.0.2", "10.0.0.1"], True),
        (PROXY, ["::ffff:10.0.0.1"], True),
        (PROXY, ["127.0.0.1"], False),
        (PROXY, [], False),
        (PROXY, [""], False),
        (PROXY, ["localhost"], False),
        (PROXY, ["10.0.0.1,"], False),
        (PROXY, ["10.0.0.1:80"], False),
        ("10.0.0.2", ["10.0.0.1"], False),
        ("10.0.0.1", ["10.0.0.2"], True),
        ("127.0.0.1", ["10.0.0.2"], True),
    ],
)
async def test_only_a_trusted_proxy_names_the_caller(
    peer: str, forwarded: list[str], allowed: bool
) -> None:
    settings = {"trusted_proxies": PROXY, "container_whitelist": "10.0.0.1,localhost"}
    headers = [("X-Forwarded-For", value) for value in forwarded]
    assert (await status(peer, headers=headers, **settings) == 200) == allowed


async def test_loopback_behind_a_proxy_of_this_host_is_this_host() -> None:
    settings = {"trusted_proxies": "127.0.0.1", "container_whitelist": "localhost"}
    assert await status("127.0.0.1", headers={"X-Forwarded-For": "::1"}, **settings) == 200
    assert await status("127.0.0.1", headers={"X-Forwarded-For": UNLISTED}, **settings) == 403
    before = events("unnamed")
    assert await status("127.0.0.1", **settings) == 403
    assert events("unnamed") == before + 1


async def test_the_sidecar_of_a_mesh_is_not_localhost() -> None:
    assert await status("127.0.0.6", container_whitelist="localhost") == 403
    assert await status("127.0.0.6", container_whitelist="localhost,127.0.0.6") == 200
    # A caller can send the header, and the sidecar passes it on.
    settings = {"trusted_proxies": "127.0.0.6", "container_whitelist": "localhost"}
    assert await status("127.0.0.6", headers={"X-Forwarded-For": "127.0.0.1"}, **settings) == 403


@pytest.fixture
def dns(monkeypatch: pytest.MonkeyPatch) -> Iterator[Nameserver]:
    """Knows that this host, at 10.0.0.3, and `web` are containers of one network."""
    own = SimpleNamespace(family=AF_INET, address="10.0.0.3", netmask="255.255.255.0")
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: {"eth0": [own]})
    with answering() as server:
        server.container("api", "10.0.0.3")
        server.container("web", "10.0.0.1")
        yield server


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """No answer of DNS is used for a second request."""
    monkeypatch.setattr(resolver, "REUSE_SECONDS", 0.0)


def named(dns: Nameserver, **settings: Any) -> dict[str, Any]:
    host, port = dns.address
    defaults = {"container_whitelist": "web", "dns_servers": f"{host}:{port}"}
    return defaults | settings


async def test_new_container_is_not_refused_by_an_old_answer(dns: Nameserver) -> None:
    """Neither as a caller nor as a proxy, whose name others have had asked for just then."""
    dns.container("shop-nginx-1", "10.0.0.80", "nginx")
    app = create_app(patient(**named(dns, trusted_proxies="nginx")), predictor=predictor_of())

    async def ask(address: str, headers: dict[str, str] | None = None) -> int:
        async with client_of(From(app, address, Connection(address))) as client:
            return (await client.get("/", headers=headers)).status_code

    assert await ask("10.0.0.1") == 200
    dns.container("web-2", "10.0.0.11", "web")
    dns.container("shop-nginx-2", "10.0.0.81", "nginx")
    await asyncio.sleep(2 * FRESH_SECONDS)
    assert await ask("10.0.0.11") == 200
    assert await ask("10.0.0.81", {"X-Forwarded-For": "10.0.0.1"}) == 200
    assert await ask("10.0.0.66") == 403


async def test_lost_proxy_name_never_makes_a_caller(dns: Nameserver) -> None:
    """A former proxy is no caller; another container at its address is no proxy."""
    dns.container("shop-nginx-1", "10.0.0.80", "nginx")
    settings = named(dns, trusted_proxies="nginx", container_whitelist="10.0.0.0/24")
    app = create_app(patient(**settings), predictor=predictor_of())
    ours, unlisted = ({"X-Forwarded-For": one} for one in ("10.0.0.7", UNLISTED))
    async with client_of(From(app, "10.0.0.80", Connection("10.0.0.80"))) as kept:
        assert (await kept.get("/", headers=ours)).status_code == 200
        assert (await kept.get("/", headers=unlisted)).status_code == 403
        dns.remove("10.0.0.80")
        async with client_of(From(app, "10.0.0.80", Connection("10.0.0.80"))) as other:
            await asyncio.sleep(2 * FRESH_SECONDS)
            assert (await other.get("/")).status_code == 200
        for headers in (unlisted, ours, {}):
            assert (await kept.get("/", headers=headers)).status_code == 403


@pytest.mark.usefixtures("forgetful")
async def test_reassigned_address_is_refused_on_a_kept_connection(
    dns: Nameserver,
) -> None:
    before = events("allowed", "web")
    async with calling("10.0.0.1", Connection("10.0.0.1"), **named(dns)) as client:
        for _ in range(3):
            assert (await client.get("/")).status_code == 200
        assert events("allowed", "web") == before + 1  # once for each connection
        dns.remove("10.0.0.1")
        dns.container("unlisted", "10.0.0.1")
        assert (await client.get("/")).status_code == 403


@pytest.mark.usefixtures("forgetful")
async def test_reassigned_address_is_refused_behind_and_as_a_proxy(dns: Nameserver) -> None:
    dns.container("nginx", "10.0.0.80")
    settings = named(dns, trusted_proxies="nginx", container_whitelist="web,10.0.0.7")
    web, listed = ({"X-Forwarded-For": one} for one in ("10.0.0.1", "10.0.0.7"))
    async with calling("10.0.0.80", Connection("10.0.0.80"), **settings) as client:
        assert (await client.get("/", headers=web)).status_code == 200
        dns.remove("10.0.0.1")
        assert (await client.get("/", headers=web)).status_code == 403
        assert (await client.get("/", headers=listed)).status_code == 200
        dns.remove("10.0.0.80")
        dns.container("unlisted", "10.0.0.80")
        assert (await client.get("/", headers=listed)).status_code == 403


@pytest.mark.usefixtures("forgetful")
async def test_confirmed_connections_survive_a_dns_outage(dns: Nameserver) -> None:
    kept = Connection("10.0.0.1")
    app = create_app(Settings(**named(dns)), predictor=predictor_of())  # with 250 ms for DNS
    async with client_of(From(app, "10.0.0.1", kept)) as client:
        while kept.caller is None or not kept.caller.confirmed:  # or a machine too slow for DNS
            await client.get("/")
        dns.mode = "silent"
        for _ in range(3):
            assert (await client.get("/")).status_code == 200
        async with client_of(From(app, "10.0.0.1", Connection("10.0.0.1"))) as other:
            assert (await other.get("/")).status_code == 503
        dns.mode = "truthful"
        dns.remove("10.0.0.1")
        assert (await client.get("/")).status_code == 403


async def test_listed_address_needs_no_dns(dns: Nameserver) -> None:
    settings = named(dns, container_whitelist="web,10.0.0.1")
    async with calling("10.0.0.1", Connection("10.0.0.1"), **settings) as client:
        for _ in range(3):
            assert (await client.get("/")).status_code == 200
    assert not dns.asked


async def test_peer_of_the_connection_counts_not_the_scope(dns: Nameserver) -> None:
    """The peer of the connection is identified, not `client` of the scope."""
    async with calling("10.0.0.1", Connection("10.0.0.7"), **named(dns)) as client:
        assert (await client.get("/")).status_code == 403


async def test_new_callers_get_503_without_dns(
    dns: Nameserver, capsys: pytest.CaptureFixture[str]
) -> None:
    dns.mode = "servfail"
    before = events("unknown")
    async with calling("10.0.0.1", **named(dns, container_whitelist="web,localhost")) as client:
        response = await client.get("/v1/models")
        assert response.json()["error"]["code"] == "CALLER_UNKNOWN"
        assert response.status_code == 503
        assert response.headers["Retry-After"] == "1"
        assert (await client.get("/health")).status_code == 200
    assert events("unknown") == before + 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert any(line["event"] == "caller_unknown" and line["level"] == "error" for line in lines)


async def test_health_reports_the_whitelist(dns: Nameserver) -> None:
    async def check(client: httpx.AsyncClient) -> Any:
        return (await client.get("/v1/healthz/detailed")).json()["checks"]["whitelist"]

    async with serving() as client:
        assert await check(client) == {"status": "ok", "entries": 1}
    async with serving(security_enabled=False) as client:
        assert await check(client) == {"status": "off", "entries": 0}
    settings = named(dns, container_whitelist="web,localhost")
    app = create_app(patient(**settings), predictor=predictor_of())
    dns.mode = "servfail"
    async with client_of(From(app, "10.0.0.1")) as caller, client_of(app) as local:
        assert (await caller.get("/")).status_code == 503
        assert await check(local) == {"status": "degraded", "entries": 2}
        dns.mode = "truthful"
        await asyncio.sleep(2 * FRESH_SECONDS)
        assert (await caller.get("/")).status_code == 200
        assert await check(local) == {"status": "ok", "entries": 2}


async def test_proxies_and_their_callers_can_be_listed_by_name(dns: Nameserver) -> None:
    dns.container("nginx", "10.0.0.80")
    settings = named(dns, trusted_proxies="nginx")
    connection = Connection("10.0.0.80")
    async with calling("10.0.0.80", connection, **settings) as client:
        ask = {"X-Forwarded-For": "10.0.0.1"}
        assert (await client.get("/", headers=ask)).status_code == 200
        # One connection of a proxy serves many callers.
        assert (await client.get("/", headers={"X-Forwarded-For": "10.0.0.9"})).status_code == 403
        assert connection.is_proxy
        assert connection.caller is None
    assert await status("10.0.0.9", headers={"X-Forwarded-For": "10.0.0.1"}, **settings) == 403
