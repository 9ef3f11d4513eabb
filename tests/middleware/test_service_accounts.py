"""Callers with a ServiceAccount token: by entries of the whitelist, from any address."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from kronos_api.app import create_app
from kronos_api.config import Settings
from kronos_api.errors import StartupError
from kronos_api.security import signing_keys, token_issuer
from kronos_api.security.api_keys import new_key as new_api_key
from kronos_api.telemetry.metrics import metrics
from tests.middleware.test_api_keys import From, bearer, events
from tests.security.issuer import AUDIENCE, ISSUER, Issuer, new_key, serving
from tests.web import SINGLE, body, client_of, predicting, predictor_of

PODS = ("10.244.1.7", "10.244.2.9")
ENTRIES = "localhost,serviceaccount:shop/web,serviceaccount:jobs/*"
TOKENS: dict[str, Any] = {
    "container_whitelist": ENTRIES,
    "service_account_audience": AUDIENCE,
    "service_account_issuer": ISSUER,
}


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return Issuer(first=new_key(), second=new_key())


@pytest.fixture
def file(issuer: Issuer, tmp_path: Path) -> str:
    path = tmp_path / "jwks.json"
    path.write_bytes(issuer.key_set())
    return str(path)


@asynccontextmanager
async def calling(
    jwks: str, *addresses: str, **settings: Any
) -> AsyncIterator[list[httpx.AsyncClient]]:
    """Clients of one service at `addresses`."""
    async with predicting() as predictor, AsyncExitStack() as stack:
        chosen = Settings(**(TOKENS | {"service_account_jwks": jwks} | settings))
        app = create_app(chosen, predictor=predictor)
        callers = [client_of(From(app, address)) for address in addresses]
        yield [await stack.enter_async_context(caller) for caller in callers]


async def test_a_token_passes_in_place_of_an_address_and_is_not_logged(
    issuer: Issuer, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = events("allowed", "serviceaccount:jobs/*"), events("refused", "other")
    tokens = {
        "nightly": issuer.token("jobs/nightly"),
        "unlisted": issuer.token("shop/other"),
        "expired": issuer.token(exp=1),
        "malformed": "a.b.c",
    }
    answers = {}
    async with calling(file, PODS[0], "127.0.0.1") as (client, listed):
        for name, token in tokens.items():
            answers[name] = await client.post(SINGLE, json=body(4), headers=bearer(token))
        answers["none"] = await client.post(SINGLE, json=body(4))
        several = [("Authorization", f"Bearer {tokens['nightly']}")] * 2
        answers["several"] = await client.get("/", headers=several)
        answers["listed"] = await listed.get("/")
        answers["listed, expired"] = await listed.get("/", headers=bearer(tokens["expired"]))
        assert (await client.get("/health", headers=bearer("a.b.c"))).status_code == 200
    outcomes = {
        name: (answer.status_code, answer.headers.get("WWW-Authenticate"))
        for name, answer in answers.items()
    }
    assert outcomes == {
        "nightly": (200, None),
        "unlisted": (403, None),
        "expired": (401, 'Bearer error="invalid_token"'),
        "malformed": (401, 'Bearer error="invalid_token"'),
        "none": (401, "Bearer"),
        "several": (401, 'Bearer error="invalid_token"'),
        "listed": (200, None),
        "listed, expired": (401, 'Bearer error="invalid_token"'),
    }
    assert answers["unlisted"].json()["error"]["code"] == "CONTAINER_NOT_ALLOWED"
    assert "serviceaccount:shop/other" in answers["unlisted"].json()["error"]["message"]
    assert "ServiceAccount token" in answers["none"].json()["error"]["message"]
    assert events("allowed", "serviceaccount:jobs/*") == before[0] + 1
    assert events("refused", "other") == before[1] + 6
    out = capsys.readouterr().out
    assert not [name for name, token in tokens.items() if token in out]
    assert not [name for name, token in tokens.items() if len(token) > 9 and token[-40:] in out]
    assert '"container_name": "serviceaccount:jobs/nightly"' in out
    assert "service_account_refused" in out


async def test_two_pods_of_one_service_account_share_its_quota(issuer: Issuer, file: str) -> None:
    async with calling(file, *PODS, rate_limit_per_minute=2) as pods:

        async def statuses(*accounts: str) -> list[int]:
            return [
                (
                    await pod.post(SINGLE, json=body(4), headers=bearer(issuer.token(account)))
                ).status_code
                for pod, account in zip(pods, accounts, strict=True)
            ]

        assert await statuses("shop/web", "shop/web") == [200, 200]
        assert await statuses("shop/web", "shop/web") == [429, 429]
        # Accounts that one entry names are callers of their own.
        assert await statuses("jobs/a", "jobs/b") == [200, 200]
        assert await statuses("jobs/a", "jobs/b") == [200, 200]
        assert await statuses("jobs/a", "jobs/b") == [429, 429]


async def test_keys_and_tokens_are_accepted_side_by_side(
    issuer: Issuer, file: str, tmp_path: Path
) -> None:
    key, line = new_api_key("shop", ["predict"])
    keys = tmp_path / "keys"
    keys.write_text(line.line())
    async with calling(file, PODS[0], api_keys_file=keys, security_exempt_paths="none") as (
        client,
    ):
        token = bearer(issuer.token())
        assert (await client.get("/v1/models", headers=bearer(key))).status_code == 200
        assert (await client.get("/metrics", headers=bearer(key))).status_code == 403
        assert (await client.get("/v1/models", headers=token)).status_code == 200
        assert (await client.get("/metrics", headers=token)).status_code == 200
        for wrong in (key + "x", key + "..", issuer.token()[:-9]):
            assert (await client.get("/v1/models", headers=bearer(wrong))).status_code == 401


def fetches(result: str) -> float:
    name = "kronos_signing_key_fetches_total"
    return metrics.registry.get_sample_value(name, {"result": result}) or 0


async def test_a_token_that_cannot_be_checked_gets_503_and_is_counted(
    issuer: Issuer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signing_keys, "HOLD_SECONDS", 0)
    monkeypatch.setattr(signing_keys, "PATIENCE", 30)
    monkeypatch.setattr(token_issuer, "FETCH_SECONDS", 30)
    before = events("unknown", "other"), fetches("failed"), fetches("fetched")
    with serving(Issuer(first=issuer.keys["first"]).key_set()) as server:
        async with calling(server.url, PODS[0]) as (client,):
            server.status = 503
            known = await client.get("/", headers=bearer(issuer.token()))
            refused = await client.get("/", headers=bearer(issuer.token(kid="second")))
    assert known.status_code == 200
    assert (refused.json()["error"]["code"], refused.headers["Retry-After"]) == (
        "CALLER_UNKNOWN",
        "1",
    )
    assert "KRONOS_SERVICE_ACCOUNT_JWKS" in refused.json()["error"]["message"]
    assert fetches("fetched") == before[2] + 1
    assert fetches("failed") == before[1] + 1
    assert events("unknown", "other") == before[0] + 1
    out = capsys.readouterr().out
    assert '"event": "signing_keys_unavailable"' in out
    assert '"event": "caller_unknown"' in out


def test_without_the_extra_the_service_does_not_start(
    file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(sys.modules):
        if name.partition(".")[0] == "jwt" or name.startswith("kronos_api.security.s"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "jwt", None)
    create_app(Settings(), predictor=predictor_of())
    with pytest.raises(StartupError, match=r"pip install 'kronos-api\[kubernetes\]'"):
        create_app(Settings(**TOKENS, service_account_jwks=file), predictor=predictor_of())


def test_the_document_has_the_scheme_where_tokens_are_on(file: str) -> None:
    settings = Settings(**TOKENS, service_account_jwks=file)
    document = create_app(settings, predictor=predictor_of()).openapi()
    scheme = document["components"]["securitySchemes"]["ApiKey"]
    assert scheme["scheme"] == "bearer"
    assert scheme["description"] == "A Kubernetes ServiceAccount token."
    predict = document["paths"][SINGLE]["post"]
    assert predict["security"] == [{"ApiKey": []}, {}]
    assert "WWW-Authenticate" in predict["responses"]["401"]["headers"]
    assert "INSUFFICIENT_SCOPE" not in predict["responses"]["403"]["description"]
