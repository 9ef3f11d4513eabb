"""Exports spans in a thread of its own, so that a slow collector blocks neither loop nor stop.

OpenTelemetry's `BatchSpanProcessor` joins its thread at the end, which waits for the collector.
Here spans wait in a bounded queue, further ones are dropped and counted, and the thread is left
behind if it does not end in time.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Final, Protocol

import structlog
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import SpanExportResult

from kronos_api.telemetry.metrics import metrics

MAX_SPANS: Final = 2048
BATCH: Final = 512
PAUSE: Final = 1.0
"""Seconds between two exports."""

log = structlog.stdlib.get_logger(__name__)


class Exporter(Protocol):
    """An exporter of OpenTelemetry, as far as the queue needs it."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export `spans`; may block."""
        ...


class SpanQueue(SpanProcessor):
    """A bounded queue of ended spans, and the thread that exports them."""

    def __init__(self, exporter: Exporter, *, most: int = MAX_SPANS) -> None:
        self._exporter = exporter
        self._most = most
        self._spans: deque[ReadableSpan] = deque()
        self._stopping = threading.Event()
        self._failing = False
        self._thread = threading.Thread(target=self._main, name="spans", daemon=True)
        self._thread.start()

    def on_end(self, span: ReadableSpan) -> None:
        """Queue `span` if it is sampled; drop it if the queue is full. Never blocks."""
        if span.context is None or not span.context.trace_flags.sampled:
            return
        if len(self._spans) >= self._most:
            metrics.spans_dropped.inc()
        else:
            self._spans.append(span)

    def stop(self, seconds: float) -> bool:
        """Export what waits, for `seconds` at most; whether the thread has ended."""
        self._stopping.set()
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _main(self) -> None:
        while not self._stopping.wait(PAUSE):
            self._export_all()
        self._export_all()

    def _export_all(self) -> None:
        while self._spans:
            batch = [self._spans.popleft() for _ in range(min(BATCH, len(self._spans)))]
            if self._export(batch):
                metrics.spans_exported.inc(len(batch))
            else:
                metrics.spans_dropped.inc(len(batch))
                if self._stopping.is_set():
                    return

    def _export(self, batch: Sequence[ReadableSpan]) -> bool:
        began = time.monotonic()
        try:
            exported = self._exporter.export(batch) is SpanExportResult.SUCCESS
        except Exception as error:
            log.debug("trace_exporter_raised", error=repr(error))
            exported = False
        if exported is self._failing:  # it has changed
            self._failing = not exported
            seconds = round(time.monotonic() - began, 3)
            if self._failing:
                log.warning("trace_export_failed", spans=len(batch), seconds=seconds)
            else:
                log.info("trace_export_recovered")
        return exported
