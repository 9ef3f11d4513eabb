"""One forecast from request values to response values, without blocking the event loop.

The predictor hands a request to the engine's thread, waits for the sample paths, and aggregates
them. Waiting, queueing and decoding together are bounded by the caller's timeout.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol, Self, TypeVar

import numpy as np
import structlog
from numpy.typing import NDArray

from kronos_api.batching.engine_thread import Engine, Worker
from kronos_api.batching.scheduler import RunState, Scheduler, Ticket
from kronos_api.checkpoints.info import ModelInfo
from kronos_api.engine.request import ForecastRequest
from kronos_api.errors import (
    InternalError,
    KronosError,
    ModelNotReady,
    PredictionTimeout,
    QueueFull,
    ShuttingDown,
    StartupError,
)
from kronos_api.telemetry.metrics import metrics
from kronos_api.timeseries.features import (
    FIELDS,
    Floats,
    Scale,
    price_floor,
    repair,
)

log = structlog.get_logger(__name__)

State = Literal["loading", "ready", "stalled", "draining", "failed"]

QUANTILE_PATHS: Final = 30
"""Sample paths of a request for quantiles that names no number."""
FEW_PATHS: Final = 10
"""Sample paths below which quantiles say little."""
SHORTEST_STALL: Final = 10.0
"""Seconds that one step of the engine may take, however short the inference timeout is."""

LEAVE_TO_THREAD = 50_000
"""Numbers in a request's sample paths, once more for each quantile level, above which they are
aggregated off the event loop."""


class Decoded(RunState, Protocol):
    """What the engine hands back: normalised sample paths, and the scale that restores them.

    values: float32 [sample_count, horizon, 6].
    """

    scale: Scale
    values: NDArray[np.float32] | None
    context_used: int


Run = TypeVar("Run", bound=Decoded)
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, eq=False)
class Forecast:
    """A forecast in the units of the request.

    mean: float32 [horizon, 6], over the sample paths; quantiles: level → float32 [horizon, 6];
    samples: float32 [sample_count, horizon, 6], if asked for. repaired counts the numbers changed,
    and floored those of them that were prices too low to exist. scaled: whether the prices were
    scaled before they were normalised.
    """

    mean: Floats
    quantiles: dict[float, Floats]
    samples: Floats | None
    context_used: int
    repaired: int
    queue_ms: float
    inference_ms: float
    floored: int = 0
    scaled: bool = False


class AsyncPredictor:
    """Forecasts for an event loop; inference runs in a thread of its own."""

    def __init__(
        self,
        load: Callable[[], Engine[ForecastRequest, Run]],
        *,
        max_queue: int = 64,
        inference_timeout: float = 30.0,
        kv_cache_mb: int = 1024,
        max_active: int = 64,
    ) -> None:
        self.max_queue = max_queue
        self._inference_timeout = inference_timeout
        self._leaving = False
        self._draining = False
        budget = kv_cache_mb << 20
        scheduler: Scheduler[ForecastRequest, Run] = Scheduler(max_queue, budget, max_active)
        self._worker: Worker[ForecastRequest, Any] = Worker(load, scheduler)

    @property
    def state(self) -> State:
        """Whether to come here for forecasts, and if not, why."""
        return "draining" if self._leaving else self._taking

    @property
    def info(self) -> ModelInfo | None:
        """What is loaded; None until ready."""
        return self._worker.info

    @property
    def queue_depth(self) -> int:
        """Forecasts that wait."""
        return self._worker.waiting

    @property
    def active(self) -> int:
        """Forecasts in the engine."""
        return self._worker.active

    @property
    def kv_cache_bytes(self) -> int:
        """Bytes of keys and values that the forecasts in the engine may hold."""
        return self._worker.kv_cache_bytes

    async def start(self) -> None:
        """Start loading in the engine's thread; returns at once."""
        self._worker.start()

    async def ready(self) -> None:
        """Wait until the model is loaded.

        Raises:
            StartupError: it could not be loaded.
        """
        # Not waited for in a thread: a load that hangs would keep the process from ending.
        while not self._worker.loaded.is_set():
            await asyncio.sleep(0.02)
        if self._worker.failure is not None:
            raise StartupError(str(self._worker.failure))

    def give_up(self, failure: StartupError) -> None:
        """Wait for the model no longer; what loads it may hang, and is left behind."""
        self._worker.give_up(failure)

    @property
    def failed(self) -> bool:
        """Whether the model could not be loaded."""
        return self._worker.failure is not None

    def leave(self) -> None:
        """Say from now on that the service goes away, and still take forecasts until it does."""
        self._leaving = True

    def drain(self) -> None:
        """Take no new forecasts; those accepted go on."""
        self._leaving = self._draining = True

    async def stop(self, timeout: float = 30.0) -> bool:
        """Drain, wait until every accepted forecast is answered, and let the model go.

        Returns whether it has gone within `timeout` seconds.
        """
        self.drain()
        # Not waited for in a thread: requests that were cut may still have all of them.
        deadline = time.monotonic() + timeout
        while not (gone := self._worker.close()) and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        return gone

    async def predict(self, request: ForecastRequest, *, timeout: float) -> Forecast:
        """Forecast one series; see `predict_many`."""
        return (await self.predict_many([request], timeout=timeout))[0]

    async def predict_many(
        self, requests: Sequence[ForecastRequest], *, timeout: float
    ) -> list[Forecast]:
        """Forecast several series, all or none, in `timeout` seconds.

        Cancelling the caller stops the decoding at its next step.

        Raises:
            ModelNotReady, ShuttingDown, QueueFull: nothing was accepted.
            PredictionTimeout: the deadline passed, or inference took longer than it may.
            WorkTooLarge: a forecast cannot be done in time at the measured pace.
            InternalError: the engine failed.
        """
        self._check_state()
        deadline = time.monotonic() + timeout
        pending = [_Pending.of(request, deadline, self._inference_timeout) for request in requests]
        self._worker.submit([one.ticket for one in pending])
        try:
            # The engine checks deadlines between steps; this also covers a step that hangs.
            async with asyncio.timeout(timeout):
                runs = await asyncio.gather(*(one.outcome for one in pending))
        except TimeoutError:
            raise PredictionTimeout("The request's deadline passed.") from None
        finally:
            for one in pending:
                one.ticket.cancelled = True
        large = sum(map(_Pending.numbers, pending)) > LEAVE_TO_THREAD
        return [await one.forecast(run, large) for one, run in zip(pending, runs, strict=True)]

    @property
    def _taking(self) -> State:
        if self._draining:
            return "draining"
        if not self._worker.loaded.is_set():
            return "loading"
        if self._worker.failure is not None:
            return "failed"
        # Deadlines are noticed between steps: a step this long has failed all that it decodes.
        stall = max(self._inference_timeout, SHORTEST_STALL)
        return "ready" if self._worker.stalled_for < stall else "stalled"

    def _check_state(self) -> None:
        match self._taking:
            case "loading":
                raise ModelNotReady("The model is still loading.", retry_after=1)
            case "failed":
                raise ModelNotReady("The model could not be loaded.", retry_after=30)
            case "stalled":
                raise ModelNotReady("The model makes no progress.", retry_after=5)
            case "draining":
                raise ShuttingDown("The service is shutting down.", retry_after=1)


@dataclass(slots=True, eq=False)
class _Pending:
    """A request under way, between the two threads."""

    request: ForecastRequest
    outcome: asyncio.Future[Decoded]
    accepted_at: float
    ticket: Ticket[ForecastRequest, Decoded] = field(init=False)

    @classmethod
    def of(cls, request: ForecastRequest, deadline: float, inference_timeout: float) -> Self:
        loop = asyncio.get_running_loop()
        pending = cls(request, loop.create_future(), time.monotonic())

        def done(_: Ticket[ForecastRequest, Decoded], outcome: Decoded | Exception) -> None:
            # Called in the engine's thread; the loop may be closed by then.
            try:
                loop.call_soon_threadsafe(pending.settle, outcome)
            except RuntimeError:
                log.debug("outcome_without_a_loop")

        pending.ticket = Ticket(request, deadline, inference_timeout, done)
        return pending

    def settle(self, outcome: Decoded | Exception) -> None:
        """Hand the outcome to whoever still waits."""
        if self.outcome.done():
            return
        if isinstance(outcome, Exception):
            self.outcome.set_exception(_told(outcome))
            # A caller that left looks at no outcome; that is no mistake to be logged.
            self.outcome.exception()
        else:
            self.outcome.set_result(outcome)

    def numbers(self) -> int:
        """Numbers that aggregating goes through."""
        one = self.request
        return one.sample_count * one.horizon * len(FIELDS) * (1 + len(one.quantile_levels))

    async def forecast(self, run: Decoded, large: bool) -> Forecast:
        """Aggregate the sample paths of an ended run, in a thread if the request is `large`."""
        assert run.values is not None
        mean, quantiles, samples, (repaired, floored) = await off_loop(
            large, _aggregate, run.values, run.scale, self.request
        )
        ticket = self.ticket
        return Forecast(
            mean=mean,
            quantiles=quantiles,
            samples=samples,
            context_used=run.context_used,
            repaired=repaired,
            queue_ms=(ticket.started_at - self.accepted_at) * 1e3,
            inference_ms=(ticket.ended_at - ticket.started_at) * 1e3,
            floored=floored,
            scaled=run.scale.scaled,
        )


def default_paths(default: int, most: int, quantiles: bool) -> int:
    """Sample paths of a request that names no number: more where it asks for `quantiles`."""
    return max(default, min(QUANTILE_PATHS, most)) if quantiles else default


async def off_loop(large: bool, work: Callable[..., Result], *args: object) -> Result:
    """`work(*args)`, in a thread if it is `large`."""
    return await asyncio.to_thread(work, *args) if large else work(*args)


def _told(failure: Exception) -> KronosError:
    """What the caller is told of a failure in the engine."""
    if isinstance(failure, KronosError):
        return failure
    log.error("inference_failed", exc_info=failure)
    metrics.engine_failures.inc()
    # torch.OutOfMemoryError on a GPU; on a CPU torch raises RuntimeError with these words.
    if isinstance(failure, MemoryError) or "out of memory" in str(failure).lower():
        return QueueFull("The engine ran out of memory for this forecast.", retry_after=5)
    return InternalError()


def _aggregate(
    values: NDArray[np.float32], scale: Scale, request: ForecastRequest
) -> tuple[Floats, dict[float, Floats], Floats | None, tuple[int, int]]:
    """Mean, quantiles and paths in the request's units, repaired if asked.

    The last are the numbers that were changed, and the prices among them that were floored.
    """
    levels = request.quantile_levels
    paths = scale.restore(values)
    mean = scale.restore(values.mean(axis=0))
    cuts = [np.quantile(paths, level, axis=0).astype(np.float32) for level in levels]
    returned: list[Floats] = [mean, *cuts] + ([paths] if request.return_samples else [])
    repaired = floored = 0
    if request.repair:
        floor = price_floor(request.candles)
        fixed = [repair(array, floor) for array in returned]
        returned = [array for array, _, _ in fixed]
        repaired = sum(count for _, count, _ in fixed)
        floored = sum(count for _, _, count in fixed)
    quantiles = dict(zip(levels, returned[1:], strict=False))
    samples = returned[-1] if request.return_samples else None
    return returned[0], quantiles, samples, (repaired, floored)
