"""Traces of requests, as a collector receives them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

pytest.importorskip("opentelemetry.sdk", reason="needs the extra otel")

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult

from kronos_api.app import create_app
from kronos_api.config import Settings
from kronos_api.launch import announce
from kronos_api.telemetry import logging, span_queue, tracing
from kronos_api.telemetry.metrics import metrics
from kronos_api.telemetry.span_queue import SpanQueue
from tests.web import JSON, SINGLE, body, listening, predictor_of

CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Collector:
    """A collector that keeps what it receives by OTLP over HTTP."""

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []

    @property
    def spans(self) -> list[Any]:
        return [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


@contextmanager
def collecting() -> Iterator[tuple[Collector, str]]:
    """A collector and its address."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.path == "/v1/traces"
            collector.requests.append(ExportTraceServiceRequest.FromString(content))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield collector, f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


async def test_request_and_its_phases_are_one_trace_below_the_caller(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with collecting() as (collector, url):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        monkeypatch.setenv("OTEL_SERVICE_NAME", "forecasts")
        app = create_app(Settings(rate_limit_enabled=False), predictor=predictor_of())
        async with (
            listening(app) as (host, port),
            httpx.AsyncClient(base_url=f"http://{host}:{port}", headers=JSON) as client,
        ):
            while (await client.get("/v1/readyz")).status_code != 200:
                pass
            response = await client.post(SINGLE, json=body(), headers={"traceparent": CALLER})
            unsampled = {"traceparent": CALLER[:-2] + "00"}
            assert (await client.get("/v1/models", headers=unsampled)).status_code == 200
    _, trace_id, caller_id, _ = CALLER.split("-")
    (server,) = (one for one in collector.spans if one.name == f"POST {SINGLE}")
    assert server.trace_id.hex() == trace_id
    assert server.parent_span_id.hex() == caller_id
    assert response.headers["traceresponse"] == f"00-{trace_id}-{server.span_id.hex()}-01"
    phases = [one for one in collector.spans if one is not server]
    assert {"parse", "queue", "prefill", "decode", "respond"} <= {one.name for one in phases}
    for one in phases:
        assert (one.trace_id, one.parent_span_id) == (server.trace_id, server.span_id)
        assert server.start_time_unix_nano <= one.start_time_unix_nano <= one.end_time_unix_nano
    resource = collector.requests[0].resource_spans[0].resource
    assert "forecasts" in {one.value.string_value for one in resource.attributes}
    lines = map(json.loads, capsys.readouterr().out.splitlines())
    (line,) = (one for one in lines if one.get("endpoint") == SINGLE)
    assert (line["trace_id"], line["span_id"]) == (trace_id, server.span_id.hex())


class HangingExporter:
    """Takes one batch and hangs until released."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.release = threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        del spans
        self.began.set()
        self.release.wait(60)
        return SpanExportResult.SUCCESS


def test_collector_that_hangs_blocks_neither_spans_nor_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(span_queue, "PAUSE", 0.001)
    exporter = HangingExporter()
    queue = SpanQueue(exporter, most=3)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(queue)
    tracer = provider.get_tracer("test")
    before = metrics.registry.get_sample_value("kronos_spans_dropped_total") or 0
    tracer.start_span("first").end()
    assert exporter.began.wait(60)
    for _ in range(5):
        tracer.start_span("next").end()
    assert metrics.registry.get_sample_value("kronos_spans_dropped_total") == before + 2
    assert not queue.stop(0.01)
    exporter.release.set()
    assert queue.stop(60)


@pytest.mark.parametrize(
    ("variables", "on"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_TRACES_EXPORTER": "none"}, False),
    ],
)
def test_variables_of_the_standard_turn_traces_on(variables: dict[str, str], on: bool) -> None:
    assert tracing.wanted(variables) is on


def test_missing_extra_is_one_warning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318")
    monkeypatch.setattr(tracing, "PACKAGES", ("package_that_is_not_installed",))
    logging.configure()
    announce(Settings(), 1)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["event"] for line in lines] == ["tracing_unavailable", "service_starting"]
    assert tracing.build_spans({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c"}, "1") is None
