"""Spans of requests, exported by OTLP over HTTP; needs the extra `otel`."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Mapping
from typing import Final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from kronos_api.telemetry.phases import PhaseTime, RequestPhases
from kronos_api.telemetry.span_queue import SpanQueue

SERVICE: Final = "kronos-api"
SPAN_NAMES: Final = {"write": "respond"}
"""Names of spans by phase, where they differ."""
MAX_SERIES: Final = 16
"""Series of a batch whose phases have spans."""
FAILED: Final = 500


class Spans:
    """Starts and ends the spans of requests. Sampler, limits and collector are as `variables` say.

    version: of the service.
    """

    def __init__(self, variables: Mapping[str, str], version: str) -> None:
        # The exporter reports every failure; the queue logs the first of an outage.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        attributes = {"service.version": version}
        attributes["service.instance.id"] = f"{socket.gethostname()}-{os.getpid()}"
        if not variables.get("OTEL_SERVICE_NAME"):
            attributes["service.name"] = SERVICE
        self._queue = SpanQueue(OTLPSpanExporter())
        provider = TracerProvider(resource=Resource.create(attributes), shutdown_on_exit=False)
        provider.add_span_processor(self._queue)
        self._tracer = provider.get_tracer(SERVICE, version)
        self._context = TraceContextTextMapPropagator()

    def start(self, method: str, headers: Mapping[str, str]) -> Span:
        """The span of a request, below that of the caller that `traceparent` names."""
        carrier = {name: headers[name] for name in self._context.fields if name in headers}
        parent = self._context.extract(carrier)
        return self._tracer.start_span(method, context=parent, kind=SpanKind.SERVER)

    def end(self, span: Span, fields: Mapping[str, str | int], phases: RequestPhases) -> None:
        """End the span of a request, with a span for each of its phases."""
        if span.is_recording():
            status = int(fields["http.response.status_code"])
            span.update_name(f"{fields['http.request.method']} {fields['http.route']}")
            span.set_attributes(dict(fields))
            if status >= FAILED:
                span.set_status(Status(StatusCode.ERROR))
            self._add_phases(span, phases)
        span.end()

    def stop(self, seconds: float) -> bool:
        """Export the spans that wait, for `seconds` at most; whether all were."""
        return self._queue.stop(seconds)

    def _add_phases(self, span: Span, phases: RequestPhases) -> None:
        context = set_span_in_context(span)
        epoch = time.time_ns() - time.monotonic_ns()  # of the monotonic clock
        parts: list[tuple[dict[str, int], dict[str, PhaseTime]]] = [({}, phases.times)]
        for number, one in enumerate(phases.series[:MAX_SERIES]):
            parts.append(({"kronos.series": number}, one.times))
        for attributes, times in parts:
            for phase, spent in list(times.items()):
                child = self._tracer.start_span(
                    SPAN_NAMES.get(phase, phase),
                    context=context,
                    attributes=attributes,
                    start_time=epoch + int(spent.began * 1e9),
                )
                child.end(epoch + int(spent.ended * 1e9))


def hex_ids(span: Span) -> tuple[str, str, int]:
    """Trace id, span id and flags of `span`, as W3C writes them."""
    context = span.get_span_context()
    return f"{context.trace_id:032x}", f"{context.span_id:016x}", int(context.trace_flags)
