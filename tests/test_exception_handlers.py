"""Errors of the router and of limited routes: what was found, and what is accepted."""

from __future__ import annotations

import pytest

from kronos_api.errors import HeadersTooLarge
from tests.web import serving


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("/v1/predict/single/", " Did you mean /v1/predict/single?"),
        ("/predict/batch", " Did you mean /v1/predict/batch?"),
        ("/metric", " Did you mean /metrics?"),
        ("/qqqqqqqqqq", ""),
    ],
)
async def test_404_names_the_nearest_path(path: str, hint: str) -> None:
    async with serving() as client:
        response = await client.get(path)
    assert response.status_code == 404
    message = response.json()["error"]["message"]
    assert message == f"There is no path {path!r}.{hint} /docs lists all paths."


async def test_404_repeats_the_start_of_a_long_path_only() -> None:
    async with serving() as client:
        response = await client.get("/" + 5000 * "x")
    assert len(response.json()["error"]["message"]) < 200


async def test_405_names_the_accepted_methods() -> None:
    async with serving() as client:
        response = await client.get("/v1/predict/single")
        other = await client.post("/v1/models", json={})
    assert response.json()["error"]["message"] == "'GET' is not accepted at this path; use POST."
    assert "use GET" in other.json()["error"]["message"]


async def test_429_of_other_routes_names_quota_and_setting() -> None:
    async with serving(rate_limit_other_per_minute=1) as client:
        await client.get("/v1/models")
        response = await client.get("/v1/models")
    assert response.status_code == 429
    message = response.json()["error"]["message"]
    assert message.startswith("Rate limit: 0 of 1 requests per minute to routes that are not")
    assert message.endswith("or raise KRONOS_RATE_LIMIT_OTHER_PER_MINUTE.")


async def test_429_of_a_route_names_its_setting() -> None:
    async with serving(rate_limits="single=1/hour") as client:
        await client.post("/v1/predict/single", json={})
        response = await client.post("/v1/predict/single", json={})
    assert response.status_code == 429
    message = response.json()["error"]["message"]
    assert message.startswith("Rate limit: 0 of 1 forecasts per hour are left. Retry in ")
    assert message.endswith(" s, or raise KRONOS_RATE_LIMITS.")


def test_renamed_code_is_in_the_details() -> None:
    error = HeadersTooLarge("large")
    assert (error.code, error.details) == (
        "HEADERS_TOO_LARGE",
        [{"previous_code": "HEAD_TOO_LARGE"}],
    )
