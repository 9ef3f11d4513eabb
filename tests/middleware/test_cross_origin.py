"""Web pages of other origins are refused, unless the operator names them."""

from __future__ import annotations

import httpx
import pytest

from tests.web import SINGLE, body, serving

PAGE = "https://app.example.com"


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://service:81", "x", ""])
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "PUT"])
async def test_an_origin_that_is_not_listed_is_refused(origin: str, method: str) -> None:
    async with serving(rate_limit_per_minute=1) as client:
        headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        response = await client.request(method, SINGLE, json=body(), headers=headers)
        error = response.json()["error"]
        assert (response.status_code, error["code"]) == (403, "ORIGIN_NOT_ALLOWED")
        assert "KRONOS_CORS_ORIGINS" in error["message"]
        assert "Access-Control-Allow-Origin" not in response.headers
        # It has cost the caller nothing.
        assert (await client.post(SINGLE, json=body())).status_code == 200


@pytest.mark.parametrize(
    ("origin", "headers"),
    [
        ("http://service", {}),
        ("http://service", {"Host": "service:80"}),
        ("http://localhost:8000", {"Host": "localhost:8000"}),
        ("http://[::1]:8000", {"Host": "[::1]:8000"}),
        ("https://service", {"X-Forwarded-Proto": "https"}),
        ("https://service:8443", {"X-Forwarded-Proto": "https", "Host": "service:8443"}),
    ],
)
async def test_own_pages_are_allowed(origin: str, headers: dict[str, str]) -> None:
    """Such as /docs, where a forecast can be tried."""
    async with serving() as client:
        response = await client.post(SINGLE, json=body(), headers={"Origin": origin} | headers)
    assert response.status_code == 200, response.text


@pytest.mark.parametrize(
    ("origin", "headers"),
    [
        ("https://service", {}),
        ("http://service:8000", {}),
        ("http://localhost:3000", {"Host": "localhost:8000"}),
        ("http://service", {"X-Forwarded-Proto": "https"}),
        ("http://", {"Host": ""}),
    ],
)
async def test_another_port_or_scheme_is_another_origin(
    origin: str, headers: dict[str, str]
) -> None:
    async with serving() as client:
        response = await client.post(SINGLE, json=body(), headers={"Origin": origin} | headers)
    assert response.status_code == 403


async def test_probes_stay_reachable() -> None:
    async with serving() as client:
        for path in ("/health", "/v1/readyz", "/metrics"):
            response = await client.get(path, headers={"Origin": "https://evil.example"})
            assert response.status_code == 200


def allows(response: httpx.Response) -> str | None:
    found: str | None = response.headers.get("Access-Control-Allow-Origin")
    return found


async def test_listed_page_can_call_and_read() -> None:
    async with serving(cors_origins=f"https://other.example, {PAGE}") as client:
        headers = {
            "Origin": PAGE,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "content-type,x-request-id",
        }
        preflight = await client.options(SINGLE, headers=headers)
        assert (preflight.status_code, allows(preflight)) == (200, PAGE)
        assert "POST" in preflight.headers["Access-Control-Allow-Methods"]
        assert preflight.headers["Access-Control-Allow-Headers"] == "content-type,x-request-id"
        forecast = await client.post(SINGLE, json=body(), headers={"Origin": PAGE})
        assert (forecast.status_code, allows(forecast)) == (200, PAGE)
        assert "Origin" in forecast.headers["Vary"]
        assert "X-RateLimit-Remaining" in forecast.headers["Access-Control-Expose-Headers"]
        refusal = await client.post(SINGLE, json={}, headers={"Origin": PAGE})
        assert (refusal.status_code, allows(refusal)) == (422, PAGE)
        evil = await client.post(SINGLE, json=body(), headers={"Origin": "https://evil.example"})
        assert (evil.status_code, allows(evil)) == (403, None)


async def test_a_star_lists_every_page() -> None:
    async with serving(cors_origins="*") as client:
        response = await client.post(SINGLE, json=body(), headers={"Origin": PAGE})
    assert (response.status_code, allows(response)) == (200, "*")


async def test_a_preflight_is_not_counted() -> None:
    async with serving(cors_origins=PAGE, rate_limit_per_minute=1) as client:
        headers = {"Origin": PAGE, "Access-Control-Request-Method": "POST"}
        for _ in range(3):
            assert (await client.options(SINGLE, headers=headers)).status_code == 200
        assert (await client.post(SINGLE, json=body())).status_code == 200
