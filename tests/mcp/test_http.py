"""`/mcp` as agents use it: sessions of both protocols, limits, refusals and cancellation."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from mcp.client import Client
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult, TextContent

from kronos_api.app import create_app
from kronos_api.config import Settings
from kronos_api.errors import StartupError
from kronos_api.telemetry.metrics import metrics
from tests.fakes import SleepyEngine, stuck
from tests.web import SINGLE, body, client_of, listening, predicting, predictor_of, until

URL = "/mcp"
ACCEPT = {"Accept": "application/json, text/event-stream"}


@asynccontextmanager
async def agents(
    engine: SleepyEngine | None = None, **settings: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a service with tools, in this process."""
    chosen = Settings(**{"mcp": True} | settings)
    async with (
        predicting(engine) as predictor,
        client_of(create_app(chosen, predictor=predictor)) as client,
    ):
        client.headers.update(ACCEPT)
        yield client


def message(method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


async def call(client: httpx.AsyncClient, tool: str, **arguments: Any) -> dict[str, Any]:
    """The result of a tool."""
    sent = message("tools/call", name=tool, arguments=arguments)
    response = await client.post(URL, json=sent)
    assert response.status_code == 200, response.text
    result: dict[str, Any] = response.json()["result"]
    return result


def text_of(result: CallToolResult) -> str:
    (content,) = result.content
    assert isinstance(content, TextContent)
    return content.text


async def test_a_session_lists_tools_and_calls_them() -> None:
    """With `initialize`; the example of the documentation is a session without."""
    app = create_app(Settings(mcp=True), predictor=predictor_of())
    async with (
        listening(app) as (host, port),
        Client(f"http://{host}:{port}{URL}", mode="legacy") as client,
    ):
        tools = (await client.list_tools()).tools
        assert [tool.name for tool in tools] == ["forecast", "calendars", "models"]

        # The client checks structured content against the tool's schema.
        good = await client.call_tool("forecast", body(30, horizon=40))
        assert not good.is_error
        assert len(good.structured_content["prediction"]) == 40
        assert "Forecast of a: 40 steps" in text_of(good)

        bad = await client.call_tool("forecast", body(4) | {"horizon": 0, "calender": "XNYS"})
        assert bad.is_error
        error = bad.structured_content["error"]
        assert error["code"] in ("VALIDATION_ERROR", "INVALID_INPUT")
        assert error["details"]
        assert text_of(bad).startswith(error["code"])

        found = await client.call_tool("calendars", {"search": "hong kong"})
        codes = [one["code"] for one in found.structured_content["calendars"]]
        assert codes == ["XHKG"]
        assert "XHKG" in text_of(found)

        models = await client.call_tool("models", {})
        assert models.structured_content["context_length"] == 512

        with pytest.raises(MCPError, match="tools are forecast, calendars, models"):
            await client.call_tool("foresight", {})


async def test_a_forecast_is_that_of_the_route() -> None:
    request = body(30, overrides={"seed": 7})
    async with agents() as client:
        result = await call(client, "forecast", **request)
        single = (await client.post(SINGLE, json=request)).json()
    answer = result["structuredContent"]
    for one in (answer, single):
        del one["timings_ms"]
    assert answer == single


@pytest.mark.parametrize(
    ("tool", "arguments", "code", "field"),
    [
        ("calendars", {"serch": "x"}, "VALIDATION_ERROR", "serch"),
        ("calendars", {"search": 5}, "VALIDATION_ERROR", "search"),
        ("models", {"id": "x"}, "VALIDATION_ERROR", "id"),
        ("forecast", {}, "VALIDATION_ERROR", "candles"),
    ],
)
async def test_wrong_arguments_are_named(
    tool: str, arguments: dict[str, Any], code: str, field: str
) -> None:
    async with agents() as client:
        result = await call(client, tool, **arguments)
    assert result["isError"]
    error = result["structuredContent"]["error"]
    assert error["code"] == code
    assert field in [detail["field"] for detail in error["details"]]


@pytest.mark.parametrize("value", ["NaN", "1e999", "9" * 400])
async def test_numbers_that_are_none_are_refused(value: str) -> None:
    sent = json.dumps(message("tools/call", name="forecast", arguments=body(4, horizon="@")))
    async with agents() as client:
        response = await client.post(URL, content=sent.replace('"@"', value))
    if response.status_code == 200:
        assert response.json()["result"]["structuredContent"]["error"]["details"]
    else:
        assert response.status_code == 400
        assert "error" in response.json()


async def test_each_forecast_is_charged_once_and_other_calls_not() -> None:
    async with agents(rate_limit_per_minute=2) as client:
        for _ in range(3):
            assert not (await call(client, "models")).get("isError")
        results = [await call(client, "forecast", **body(4)) for _ in range(3)]
        single = await client.post(SINGLE, json=body(4))
    assert [result["isError"] for result in results] == [False, False, True]
    refused = results[-1]["structuredContent"]
    assert refused["error"]["code"] == "RATE_LIMITED"
    assert refused["retry_after"] >= 1
    assert single.status_code == 429


async def test_each_message_counts_as_one_request_that_is_no_forecast() -> None:
    async with agents(rate_limit_other_per_minute=3) as client:
        await call(client, "calendars", search="XHKG")
        await call(client, "forecast", **body(4))
        listed = await client.post(URL, json=message("tools/list"))
        refused = await client.post(URL, json=message("tools/list"))
    assert listed.headers["X-RateLimit-Remaining"] == "0"
    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == "RATE_LIMITED"


async def test_a_forecast_refused_while_draining_costs_nothing() -> None:
    app_settings = Settings(mcp=True, rate_limit_per_minute=1)
    async with predicting() as predictor:
        app = create_app(app_settings, predictor=predictor)
        async with client_of(app) as client:
            client.headers.update(ACCEPT)
            predictor.drain()
            results = [await call(client, "forecast", **body(4)) for _ in range(2)]
    for result in results:
        assert result["structuredContent"]["error"]["code"] == "SHUTTING_DOWN"
        assert result["structuredContent"]["retry_after"] >= 1


@pytest.mark.parametrize(
    ("settings", "headers", "code", "status"),
    [
        ({"container_whitelist": "10.9.9.9"}, {}, "CONTAINER_NOT_ALLOWED", 403),
        ({}, {"Origin": "https://evil.example"}, "ORIGIN_NOT_ALLOWED", 403),
        ({"allowed_hosts": "api.example.com"}, {"Host": "evil.example"}, "HOST_NOT_ALLOWED", 403),
        ({}, {"Content-Type": "text/plain"}, "UNSUPPORTED_MEDIA_TYPE", 415),
        ({"max_request_size_mb": 0.0001}, {}, "REQUEST_TOO_LARGE", 413),
        ({}, {"Padding": "3000000"}, "REQUEST_TOO_LARGE", 413),
    ],
)
async def test_requests_are_refused_as_those_of_other_routes(
    settings: dict[str, Any], headers: dict[str, str], code: str, status: int
) -> None:
    padding = " " * int(headers.get("Padding", 100))
    content = json.dumps(message("tools/list")) + padding
    async with agents(**settings) as client:
        response = await client.post(URL, content=content, headers=headers)
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)


@pytest.mark.parametrize("version", [None, "2026-07-28"])
async def test_closing_the_connection_cancels_the_forecast(version: str | None) -> None:
    engine = SleepyEngine()
    headers = ACCEPT | ({"MCP-Protocol-Version": version} if version else {})
    meta: dict[str, Any] = {}
    if version:
        headers |= {"Mcp-Method": "tools/call", "Mcp-Name": "forecast"}
        meta["io.modelcontextprotocol/protocolVersion"] = version
        meta["io.modelcontextprotocol/clientCapabilities"] = {}
    sent = message("tools/call", name="forecast", arguments=body(4), _meta=meta)
    before = metrics.registry.get_sample_value(
        "kronos_requests_total", {"route": URL, "status": "499"}
    )
    app = create_app(Settings(mcp=True), predictor=predictor_of(engine))
    async with listening(app) as (host, port):
        async with stuck(engine), httpx.AsyncClient(base_url=f"http://{host}:{port}") as client:
            asked = asyncio.create_task(client.post(URL, json=sent, headers=headers))
            await until(lambda: bool(engine.runs) or asked.done())
            assert not asked.done(), asked.result().text
            asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)
            await until(
                lambda: (
                    metrics.registry.get_sample_value(
                        "kronos_requests_total", {"route": URL, "status": "499"}
                    )
                    == (before or 0) + 1
                )
            )
        await until(lambda: engine.runs[0].released)
    assert engine.runs[0].values is None


async def test_calls_are_logged_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    async with agents() as client:
        await call(client, "forecast", **body(4, horizon=3))
        await call(client, "models", unknown=1)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    forecast, models = (line for line in lines if line["event"] == "request")
    assert (forecast["endpoint"], forecast["tool"], forecast["horizon"]) == (URL, "forecast", 3)
    assert forecast["mcp_method"] == "tools/call"
    assert (models["tool"], models["code"]) == ("models", "VALIDATION_ERROR")
    for tool, status in (("forecast", "ok"), ("models", "error")):
        labels = {"tool": tool, "status": status}
        assert metrics.registry.get_sample_value("kronos_tool_calls_total", labels)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"jsonrpc":"2.0"}', b"[" * 50_000])
async def test_a_body_that_is_no_message_gets_400(content: bytes) -> None:
    async with agents() as client:
        response = await client.post(URL, content=content)
    assert response.status_code == 400
    assert response.json()["error"]["code"] < 0  # of JSON-RPC


async def test_there_is_no_path_unless_it_is_turned_on() -> None:
    async with client_of(create_app(Settings(), predictor=predictor_of())) as client:
        response = await client.post(URL, json=message("tools/list"))
    assert response.status_code == 404


def test_without_the_extra_the_start_fails_with_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("kronos_api.mcp.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mcp.server.lowlevel", None)
    with pytest.raises(StartupError, match=r"KRONOS_MCP is on.* pip install 'kronos-api\[mcp\]'"):
        create_app(Settings(mcp=True), predictor=predictor_of())
