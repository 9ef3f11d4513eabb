"""Hosts that a request may name: DNS rebinding, and what must not break for it."""

from __future__ import annotations

import httpx
import pytest

from kronos_api.app import create_app
from kronos_api.config import Settings
from tests.web import predictor_of

NAMED = "api.example.com, kronos-api,10.0.0.5"


async def ask(
    host: str | None, peer: str = "127.0.0.1", path: str = "/", **settings: str
) -> httpx.Response:
    """The response to a request of `peer` that names `host`."""
    chosen = Settings(container_whitelist="0.0.0.0/0,::/0,localhost", **settings)  # type: ignore[arg-type]
    app = create_app(chosen, predictor=predictor_of())
    transport = httpx.ASGITransport(app, client=(peer, 1234))
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as asking:
        request = asking.build_request("GET", path)
        del request.headers["Host"]
        if host is not None:
            request.headers["Host"] = host
        return await asking.send(request)


@pytest.mark.parametrize("peer", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("localhost", True),
        ("LOCALHOST:8000", True),
        ("localhost.", True),
        ("kronos.localhost:8000", True),
        ("127.0.0.1:8000", True),
        ("[::1]:8000", True),
        ("0.0.0.0:8000", True),
        ("kronos-api:8000", True),
        (None, True),
        ("evil.example", False),
        ("evil.example:8000", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("evil.example:localhost", False),
        ("", False),
        ("[evil.example]", False),
    ],
)
async def test_local_requests_must_name_local_hosts(
    peer: str, host: str | None, allowed: bool
) -> None:
    response = await ask(host, peer)
    assert response.status_code == (200 if allowed else 403), response.text


async def test_a_refusal_names_the_host_and_the_setting() -> None:
    response = await ask("evil.example")
    error = response.json()["error"]
    assert (error["code"], response.headers["Connection"]) == ("HOST_NOT_ALLOWED", "close")
    assert "'evil.example'" in error["message"]
    assert "KRONOS_ALLOWED_HOSTS" in error["message"]


@pytest.mark.parametrize("host", ["kronos-api:8000", "api.example.com", "10.0.0.9:8000"])
@pytest.mark.parametrize("peer", ["10.0.0.7", "127.0.0.6"])
async def test_remote_requests_can_name_any_host(peer: str, host: str) -> None:
    assert (await ask(host, peer)).status_code == 200


@pytest.mark.parametrize(
    ("peer", "host", "allowed"),
    [
        ("10.0.0.7", "api.example.com", True),
        ("10.0.0.7", "API.example.com:8443", True),
        ("10.0.0.7", "kronos-api:8000", True),
        ("10.0.0.7", "10.0.0.5:8000", True),
        ("10.0.0.7", "10.0.0.6:8000", False),
        ("10.0.0.7", "localhost", False),
        ("10.0.0.7", "other", False),
        ("127.0.0.1", "api.example.com", True),
        ("127.0.0.1", "localhost:8000", True),
        ("127.0.0.1", "127.0.0.1:8000", True),
        ("127.0.0.1", "other", False),
    ],
)
async def test_list_applies_to_every_peer(peer: str, host: str, allowed: bool) -> None:
    response = await ask(host, peer, allowed_hosts=NAMED)
    assert response.status_code == (200 if allowed else 403)


async def test_a_star_allows_any() -> None:
    assert (await ask("evil.example", allowed_hosts="*")).status_code == 200


@pytest.mark.parametrize("path", ["/health", "/v1/healthz", "/metrics"])
async def test_exempt_paths_accept_any_host(path: str) -> None:
    assert (await ask("any.example", path=path)).status_code == 200
