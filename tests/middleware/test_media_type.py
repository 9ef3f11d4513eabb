"""JSON bodies only: other types and encodings are refused before they cost anything."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from tests.web import BATCH, SINGLE, body, encode, serving


@pytest_asyncio.fixture(loop_scope="function")
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with serving() as client:
        del client.headers["Content-Type"]
        yield client


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "Application/JSON",
        "application/json; charset=utf-8",
        'application/json;charset="UTF-8"',
        "application/json; version=1",
        "application/vnd.api+json",
    ],
)
async def test_json_is_accepted(client: httpx.AsyncClient, content_type: str) -> None:
    headers = {"Content-Type": content_type}
    response = await client.post(SINGLE, content=encode(body()), headers=headers)
    assert response.status_code == 200, response.text


@pytest.mark.parametrize("path", [SINGLE, BATCH, "/v1/predict/none"])
@pytest.mark.parametrize(
    ("content_type", "found"),
    [
        ("text/plain", "'text/plain'"),
        ("text/plain;charset=UTF-8", "'text/plain;charset=UTF-8'"),
        ("application/x-www-form-urlencoded", "'application/x-www-form-urlencoded'"),
        ("multipart/form-data; boundary=application/json", "'multipart/form-data"),
        ("application/jsonp", "'application/jsonp'"),
        ("application/x-ndjson", "'application/x-ndjson'"),
        ("text/plain, application/json", "'text/plain, application/json'"),
        ("x" * 1000, "'" + "x" * 100 + "'"),
        ("application/json; charset=utf-16", "'utf-16'"),
        (None, "no Content-Type"),
    ],
)
async def test_other_types_get_415(
    client: httpx.AsyncClient, path: str, content_type: str | None, found: str
) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    response = await client.post(path, content=encode(body()), headers=headers)
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (415, "UNSUPPORTED_MEDIA_TYPE")
    assert found in error["message"]
    assert "application/json" in error["message"] or "UTF-8" in error["message"]


@pytest.mark.parametrize("encoding", ["br", "deflate", "x", "gzip, gzip", "zstd,gzip"])
async def test_other_encodings_get_415(client: httpx.AsyncClient, encoding: str) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": encoding}
    response = await client.post(SINGLE, content=b"...", headers=headers)
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (415, "UNSUPPORTED_MEDIA_TYPE")
    assert error["message"].endswith("send gzip or zstd, or no Content-Encoding.")


async def test_a_refused_type_costs_no_quota() -> None:
    """A web page of any origin may send text/plain without asking."""
    async with serving(rate_limit_per_minute=1) as client:
        for _ in range(3):
            plain = {"Content-Type": "text/plain"}
            response = await client.post(SINGLE, content=encode(body()), headers=plain)
            assert response.status_code == 415
        assert (await client.post(SINGLE, json=body())).status_code == 200


async def test_no_body_needs_no_type(client: httpx.AsyncClient) -> None:
    assert (await client.post(SINGLE)).json()["error"]["code"] == "MALFORMED_JSON"
    assert (await client.post("/v1/models", content=b"x")).status_code == 405
    assert (await client.post("/no", content=b"x")).status_code == 404
