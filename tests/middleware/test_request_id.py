"""Names of requests: taken, made, and found again."""

from __future__ import annotations

import json
import re

import pytest
import structlog

from tests.web import serving

TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.mark.parametrize("given", ["a", "A-b_c.9", "x" * 64])
async def test_valid_id_is_accepted(given: str) -> None:
    async with serving() as client:
        response = await client.get("/nowhere", headers={"X-Request-ID": given})
    assert response.headers["X-Request-ID"] == given
    assert response.json()["error"]["request_id"] == given


@pytest.mark.parametrize("given", ["", "x" * 65, "a b", "a\tb", "ä", 'a"b', "../a", "a,b"])
async def test_invalid_id_is_replaced(given: str) -> None:
    async with serving() as client:
        headers = [(b"X-Request-ID", given.encode())]
        first = await client.get("/", headers=headers)
        second = await client.get("/", headers=headers)
    made = [response.headers["X-Request-ID"] for response in (first, second)]
    assert all(re.fullmatch("[0-9a-f]{32}", name) for name in made)
    assert made[0] != made[1]


@pytest.mark.parametrize(
    ("traceparent", "trace_id"),
    [
        (f"00-{TRACE}-b7ad6b7169203331-01", TRACE),
        (f"cc-{TRACE}-b7ad6b7169203331-01-more", TRACE),
        (f"00-{TRACE}-b7ad6b7169203331-01-more", None),
        (f"ff-{TRACE}-b7ad6b7169203331-01", None),
        (f"00-{'0' * 32}-b7ad6b7169203331-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE.upper()}-b7ad6b7169203331-01", None),
        ("nonsense", None),
    ],
)
async def test_a_valid_trace_is_logged(
    capsys: pytest.CaptureFixture[str], traceparent: str, trace_id: str | None
) -> None:
    async with serving() as client:
        await client.get("/", headers={"traceparent": traceparent})
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    (line,) = (line for line in lines if line["event"] == "request")
    assert line.get("trace_id") == trace_id


async def test_context_is_cleared() -> None:
    async with serving() as client:
        await client.get("/nowhere")
        assert structlog.contextvars.get_contextvars() == {}
