"""Callers with an API key: in place of the whitelist, by name, within their scopes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from kronos_api.app import create_app
from kronos_api.config import Settings
from kronos_api.middleware.caller_identity import CallerIdentity
from kronos_api.middleware.credentials import Credentials
from kronos_api.security.api_keys import ApiKeys, new_key
from kronos_api.security.identity import Identity
from kronos_api.security.whitelist import Whitelist
from kronos_api.telemetry.metrics import metrics
from tests.web import SINGLE, body, client_of, predicting, predictor_of

UNLISTED = "203.0.113.9"
PREDICT, PREDICT_LINE = new_key("shop", ["predict"])
METRICS, METRICS_LINE = new_key("prometheus", ["metrics"])


class From:
    """The service as a caller at `address` sees it."""

    def __init__(self, app: ASGIApp, address: str) -> None:
        self.app = app
        self.client = (address, 4711)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app({**scope, "client": self.client}, receive, send)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text(f"{PREDICT_LINE.line()}\n{METRICS_LINE.line()}\n")
    return path


@asynccontextmanager
async def calling(
    file: Path | None, *addresses: str, **settings: Any
) -> AsyncIterator[list[httpx.AsyncClient]]:
    """Clients of one service at `addresses`."""
    async with predicting() as predictor:
        app = create_app(Settings(api_keys_file=file, **settings), predictor=predictor)
        clients = [client_of(From(app, address)) for address in addresses]
        entered = [await client.__aenter__() for client in clients]
        try:
            yield entered
        finally:
            for client in clients:
                await client.__aexit__(None, None, None)


def bearer(key: str, scheme: str = "Bearer") -> dict[str, str]:
    return {"Authorization": f"{scheme} {key}"}


def events(event: str, container: str) -> float:
    labels = {"event": event, "container": container}
    return metrics.registry.get_sample_value("kronos_security_events_total", labels) or 0


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_a_key_passes_in_place_of_the_whitelist(file: Path, scheme: str) -> None:
    before = events("allowed", "shop")
    async with calling(file, UNLISTED) as (client,):
        response = await client.post(SINGLE, json=body(4), headers=bearer(PREDICT, scheme))
    assert response.status_code == 200, response.text
    assert events("allowed", "shop") == before + 1


@pytest.mark.parametrize(
    ("headers", "challenge"),
    [
        ({}, "Bearer"),
        ({"Authorization": "Basic c2hvcDpzaG9w"}, "Bearer"),
        (bearer("kronos_wrong"), 'Bearer error="invalid_token"'),
        (bearer(""), 'Bearer error="invalid_token"'),
        (bearer(PREDICT + "x"), 'Bearer error="invalid_token"'),
        (bearer(PREDICT_LINE.digest), 'Bearer error="invalid_token"'),
    ],
)
async def test_an_unlisted_caller_without_a_valid_key_gets_401(
    file: Path, headers: dict[str, str], challenge: str
) -> None:
    async with calling(file, UNLISTED) as (client,):
        response = await client.post(SINGLE, json=body(4), headers=headers)
    assert (response.status_code, response.json()["error"]["code"]) == (401, "UNAUTHENTICATED")
    assert response.headers["WWW-Authenticate"] == challenge
    assert response.headers["Connection"] == "close"


async def test_a_listed_caller_needs_no_key_but_a_wrong_one_is_refused(file: Path) -> None:
    before = events("refused", "other")
    async with calling(file, "127.0.0.1") as (client,):
        assert (await client.get("/")).status_code == 200
        assert (await client.get("/", headers=bearer("kronos_wrong"))).status_code == 401
        several = [("Authorization", f"Bearer {PREDICT}"), ("Authorization", "Bearer other")]
        assert (await client.get("/", headers=several)).status_code == 401
    assert events("refused", "other") == before + 2


async def test_each_path_needs_its_scope(file: Path) -> None:
    async with calling(file, UNLISTED, security_exempt_paths="none", mcp=True) as (client,):
        for path in ("/metrics", "/v1/healthz/detailed"):
            assert (await client.get(path, headers=bearer(METRICS))).status_code == 200
            refused = await client.get(path, headers=bearer(PREDICT))
            assert refused.status_code == 403
            assert 'scope="metrics"' in refused.headers["WWW-Authenticate"]
        for path in (SINGLE, "/mcp", "/v1/models", "/nowhere"):
            refused = await client.post(path, json={}, headers=bearer(METRICS))
            assert refused.status_code == 403
            assert refused.json()["error"]["code"] == "INSUFFICIENT_SCOPE"


async def test_keys_of_a_blocked_name_are_refused(file: Path) -> None:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await Response("passed")(scope, receive, send)

    app = CallerIdentity(
        answer,
        allowed=Identity(Whitelist.parse("localhost")),
        proxies=Identity(Whitelist.parse("")),
        exempt=(),
        credentials=Credentials(ApiKeys(file)),
        blocked=lambda: {"shop"},
    )
    async with client_of(From(app, UNLISTED)) as client:
        response = await client.get("/", headers=bearer(PREDICT))
    assert (response.status_code, response.json()["error"]["code"]) == (403, "CALLER_BLOCKED")


async def test_exempt_paths_need_no_key(file: Path) -> None:
    async with calling(file, UNLISTED) as (client,):
        assert (await client.get("/health")).status_code == 200
        assert (await client.get("/health", headers=bearer("wrong"))).status_code == 200


async def test_the_quota_is_that_of_the_key_whatever_its_address(file: Path) -> None:
    addresses = (UNLISTED, "198.51.100.7")
    async with calling(file, *addresses, rate_limit_per_minute=2) as clients:
        statuses = [
            (await client.post(SINGLE, json=body(4), headers=bearer(PREDICT))).status_code
            for client in (*clients, *clients)
        ]
    assert statuses == [200, 200, 429, 429]


async def test_no_key_is_in_the_log(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with calling(file, UNLISTED) as (client,):
        await client.post(SINGLE, json=body(4), headers=bearer(PREDICT))
        await client.post(SINGLE, json=body(4), headers=bearer(METRICS))
        await client.post(SINGLE, json=body(4), headers=bearer("kronos_wrong"))
    out = capsys.readouterr().out
    for key in (PREDICT, METRICS, "kronos_wrong"):
        assert key not in out
    assert '"container_name": "shop"' in out
    assert "api_key_refused" in out


async def test_without_a_file_the_header_means_nothing() -> None:
    async with calling(None, UNLISTED, "127.0.0.1") as (unlisted, listed):
        refused = await unlisted.get("/", headers=bearer(PREDICT))
        passed = await listed.get("/", headers=bearer("wrong"))
    assert refused.json()["error"]["code"] == "CONTAINER_NOT_ALLOWED"
    assert "WWW-Authenticate" not in refused.headers
    assert passed.status_code == 200


def test_the_document_has_the_scheme_where_keys_are_on(file: Path) -> None:
    on = create_app(Settings(api_keys_file=file), predictor=predictor_of()).openapi()
    off = create_app(Settings(), predictor=predictor_of()).openapi()
    assert on["components"]["securitySchemes"]["ApiKey"]["scheme"] == "bearer"
    predict = on["paths"][SINGLE]["post"]
    assert predict["security"] == [{"ApiKey": []}, {}]
    assert "WWW-Authenticate" in predict["responses"]["401"]["headers"]
    assert "INSUFFICIENT_SCOPE" in predict["responses"]["403"]["description"]
    assert "securitySchemes" not in off["components"]
    assert "401" not in off["paths"][SINGLE]["post"]["responses"]
