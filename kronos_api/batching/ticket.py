"""One accepted forecast: its request, its deadline, and the future that receives the outcome."""

from __future__ import annotations

import traceback
from concurrent.futures import Future
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from kronos_api.batching.candle_channel import CandleChannel
from kronos_api.engine.pace import PhaseCounts
from kronos_api.engine.request import ForecastRequest
from kronos_api.errors import InternalError, KronosError, QueueFull
from kronos_api.telemetry.metrics import metrics
from kronos_api.telemetry.phases import PhaseClock

if TYPE_CHECKING:
    from kronos_api.engine.sequence import Sequence
    from kronos_api.engine.streaming import CandleDecoder

log = structlog.stdlib.get_logger(__name__)


@dataclass(slots=True, eq=False)
class Ticket:
    """An accepted forecast. Times are seconds of `time.monotonic`.

    The event loop makes it and awaits or cancels `future`; all other attributes belong to the
    engine's thread until `future` is done.

    Attributes:
        request: what to forecast.
        accepted_at, deadline: when it was accepted, and when its caller stops waiting.
        inference_timeout: seconds that inference may take.
        future: receives the finished sequence or a `KronosError`; cancelling it cancels the
            forecast.
        started_at, ended_at: when inference started and ended.
        sequence: the forecast inside the engine; None while it waits.
        kv_bytes, counts: keys and values, steps and chunks of the whole forecast, once
            `estimated`.
        channel: takes candles to the event loop as they are decoded; None unless it is a stream.
        decoder: of those candles.
        overtook: whether it started before a larger forecast that was accepted earlier.
        context: of the request, so that a failure is logged under its request id.
        phases: seconds in the queue and in each phase of the engine.
        candles: candles decoded so far, over all sample paths.
    """

    request: ForecastRequest
    accepted_at: float
    deadline: float
    inference_timeout: float
    channel: CandleChannel | None = None
    future: Future[Sequence] = field(default_factory=Future)
    started_at: float = 0.0
    ended_at: float = 0.0
    sequence: Sequence | None = None
    decoder: CandleDecoder | None = None
    kv_bytes: int = 0
    counts: PhaseCounts = field(default_factory=lambda: PhaseCounts(0, 0))
    estimated: bool = False
    overtook: bool = False
    context: Context = field(default_factory=copy_context)
    phases: PhaseClock = field(init=False)
    candles: int = 0

    def __post_init__(self) -> None:
        self.phases = PhaseClock(self.accepted_at)

    @property
    def queue_seconds(self) -> float:
        """Seconds between acceptance and the start of inference."""
        return self.started_at - self.accepted_at

    @property
    def inference_seconds(self) -> float:
        """Seconds between the start and the end of inference."""
        return self.ended_at - self.started_at

    @property
    def backlog(self) -> int:
        """Candles that the engine has sampled and `send_candles` has not sent."""
        if self.decoder is None or self.sequence is None or self.sequence.ended:
            return 0
        return self.decoder.backlog(self.sequence)

    def send_candles(self) -> None:
        """Decode the next candles and send them to the event loop; a failure ends the forecast."""
        assert self.channel is not None
        assert self.decoder is not None
        assert self.sequence is not None
        try:
            candles = self.decoder.decode(self.sequence)
        except Exception as failure:
            self.sequence.fail(failure)
            return
        if candles.shape[1]:
            self.channel.send(candles, self.sequence.scale)

    def finish(self, now: float) -> None:
        """Free the KV cache and hand over the sequence, or its failure. Called once."""
        assert self.sequence is not None
        if self.sequence.failure is not None:
            self.fail(self.sequence.failure, now)
        elif self._end(now):
            self.future.set_result(self.sequence)

    def fail(self, failure: Exception, now: float) -> None:
        """Free the KV cache and hand over `failure` as a `KronosError`. Called once."""
        if self._end(now):
            self.future.set_exception(self.context.run(caller_error, failure))

    def _end(self, now: float) -> bool:
        """Whether the future still wants an outcome: a cancelled one does not."""
        self.ended_at = now
        self.phases.end(now)
        self.decoder = None
        if self.sequence is not None:
            self.sequence.release()
        return self.future.set_running_or_notify_cancel()


def caller_error(failure: Exception) -> KronosError:
    """The error that the caller gets for a failure in the engine; an unexpected one is logged."""
    if isinstance(failure, KronosError):
        return failure
    log.error("inference_failed", exc_info=failure)
    traceback.clear_frames(failure.__traceback__)  # their variables hold a KV cache
    metrics.engine_failures.inc()
    # torch.OutOfMemoryError on a GPU; on a CPU torch raises RuntimeError with these words.
    if isinstance(failure, MemoryError) or "out of memory" in str(failure).lower():
        return QueueFull(
            "The engine ran out of memory for this forecast. Retry in 5 s, ask for fewer sample"
            " paths, or lower KRONOS_KV_CACHE_MB.",
            retry_after=5,
        )
    return InternalError()
