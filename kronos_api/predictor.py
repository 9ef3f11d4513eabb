"""The predictor: forecasts for an event loop, from request values to response values.

It hands requests to the engine's thread as tickets, waits for their sequences, and aggregates the
sample paths. One deadline covers queue and inference.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import TYPE_CHECKING, Final

from kronos_api.aggregate import aggregate, aggregate_steps, cost
from kronos_api.batching.candle_channel import CandleChannel
from kronos_api.batching.engine_thread import EngineThread
from kronos_api.batching.refusals import SHORTEST_STALL, State, drained_by_operator, not_ready
from kronos_api.batching.scheduler import Scheduler, deadline_passed
from kronos_api.batching.ticket import Ticket
from kronos_api.checkpoints.info import ModelInfo
from kronos_api.engine.request import ForecastRequest
from kronos_api.errors import StartupError
from kronos_api.forecast import Forecast, ForecastSteps
from kronos_api.off_loop import off_loop
from kronos_api.telemetry import phases

if TYPE_CHECKING:
    from kronos_api.engine.engine import Engine

LARGE: Final = 50_000
"""Requests whose sample paths have more numbers, counted once more for each quantile level, are
aggregated off the event loop."""


class AsyncPredictor:
    """Forecasts for an event loop; inference runs in the engine's own thread."""

    def __init__(
        self,
        load: Callable[[], Engine],
        *,
        max_queue: int = 64,
        inference_timeout: float = 30.0,
        kv_cache_mb: int = 1024,
        max_active: int = 64,
    ) -> None:
        """Make a predictor that is not started.

        Args:
            load: makes the engine, in the engine's thread; may raise `StartupError`.
            max_queue: forecasts that may wait.
            inference_timeout: seconds of inference that one forecast may take.
            kv_cache_mb: MiB of keys and values that running forecasts may hold together.
            max_active: forecasts that may run together.
        """
        self.max_queue = max_queue
        self.kv_cache_limit = kv_cache_mb << 20
        self._inference_timeout = inference_timeout
        self.drained = False
        """Whether the operator has new forecasts refused; may be set and unset at any time."""
        self._unready = False
        self._draining = False
        scheduler = Scheduler(max_queue, self.kv_cache_limit, max_active)
        self._thread = EngineThread(load, scheduler)

    @property
    def state(self) -> State:
        """Whether callers should send forecasts here, and if not, why."""
        return "draining" if self._unready else self._admission

    @property
    def readiness(self) -> State:
        """`state` for callers: `draining`, too, while the operator has drained this replica."""
        return "draining" if self.drained and self.state == "ready" else self.state

    @property
    def info(self) -> ModelInfo | None:
        """What is loaded; None until the model is ready."""
        return self._thread.info

    @property
    def queue_depth(self) -> int:
        """Forecasts in the queue."""
        return self._thread.waiting

    @property
    def active(self) -> int:
        """Forecasts in the engine."""
        return self._thread.active

    @property
    def kv_cache_bytes(self) -> int:
        """Bytes of keys and values reserved for the forecasts in the engine."""
        return self._thread.kv_cache_bytes

    async def start(self) -> None:
        """Start to load the model in the engine's thread, without waiting for it."""
        self._thread.start()

    async def ready(self) -> None:
        """Wait until the model is loaded.

        Raises:
            StartupError: the model could not be loaded.
        """
        # Polled: a thread that waits for a load that hangs would keep the process from ending.
        while not self._thread.loaded.is_set():
            await asyncio.sleep(0.02)
        if self._thread.failure is not None:
            raise StartupError(str(self._thread.failure))

    def give_up(self, failure: StartupError) -> None:
        """Stop waiting for the model; a load that hangs is left behind in its daemon thread."""
        self._thread.give_up(failure)

    @property
    def failed(self) -> bool:
        """Whether the model could not be loaded."""
        return self._thread.failure is not None

    def mark_unready(self) -> None:
        """Report `draining` from now on, and still accept forecasts."""
        self._unready = True

    def drain(self) -> None:
        """Accept no new forecasts; accepted ones go on."""
        self._unready = self._draining = True

    async def stop(self, timeout: float = 30.0) -> bool:
        """Drain, wait until every accepted forecast has ended, and unload the model.

        Returns whether the engine's thread ended within `timeout` seconds.
        """
        self.drain()
        # Polled: requests that were cut off may still occupy all threads of the executor.
        deadline = time.monotonic() + timeout
        while not (ended := self._thread.close()) and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        return ended

    async def predict(self, request: ForecastRequest, *, timeout: float) -> Forecast:
        """Forecast one series; see `predict_many`."""
        return (await self.predict_many([request], timeout=timeout))[0]

    async def predict_many(
        self, requests: Sequence[ForecastRequest], *, timeout: float
    ) -> list[Forecast]:
        """Forecast several series, all or none, in `timeout` seconds.

        Cancelling this call cancels the forecasts at their next step.

        Raises:
            ModelNotReady, ShuttingDown, QueueFull: nothing was accepted.
            PredictionTimeout: the deadline or KRONOS_INFERENCE_TIMEOUT passed.
            WorkTooLarge: a forecast cannot end in time at the measured pace.
            InternalError: the engine failed.
        """
        self._check_state()
        now = time.monotonic()
        tickets = [
            Ticket(request, now, now + timeout, self._inference_timeout) for request in requests
        ]
        self._thread.submit(tickets)
        for ticket in tickets:
            phases.follow(ticket.phases)
        try:
            # The scheduler checks deadlines between steps; this timeout covers a step that hangs.
            async with asyncio.timeout(timeout):
                await asyncio.gather(*(asyncio.wrap_future(ticket.future) for ticket in tickets))
        except TimeoutError:
            late = next((one for one in tickets if one.future.cancelled()), tickets[0])
            raise deadline_passed(late, time.monotonic()) from None
        finally:
            for ticket in tickets:
                ticket.future.cancel()
        large = sum(map(cost, requests)) > LARGE
        return [await off_loop(large, _forecast, ticket) for ticket in tickets]

    async def stream(
        self, request: ForecastRequest, *, timeout: float
    ) -> AsyncGenerator[ForecastSteps | Forecast]:
        """Forecast one series: each step once, as it is decoded, then what `predict` returns.

        Closing the generator cancels the forecast at its next step. Raises as `predict_many`.
        """
        self._check_state()
        now, by = time.monotonic(), asyncio.get_running_loop().time() + timeout
        channel = CandleChannel()
        ticket = Ticket(request, now, now + timeout, self._inference_timeout, channel)
        ticket.future.add_done_callback(channel.end)
        self._thread.submit([ticket])
        phases.follow(ticket.phases)
        large, done = cost(request) > LARGE, 0
        try:
            while new := await channel.receive(by):
                steps = await off_loop(large, aggregate_steps, request, *new, done)
                done += len(steps.mean)
                yield steps
            forecast = await off_loop(large, _forecast, ticket)
            if done < request.horizon:
                yield forecast.steps(done)
            yield forecast
        except TimeoutError:  # of a step that hangs: the scheduler checks deadlines between steps
            raise deadline_passed(ticket, time.monotonic()) from None
        finally:
            ticket.future.cancel()

    @property
    def _admission(self) -> State:
        """The state without `mark_unready`: whether a forecast would be accepted."""
        if self._draining:
            return "draining"
        if not self._thread.loaded.is_set():
            return "loading"
        if self._thread.failure is not None:
            return "failed"
        return "ready" if self._thread.stalled_for < self._stall else "stalled"

    @property
    def _stall(self) -> float:
        """Seconds of one step after which every forecast in it is past its deadline."""
        return max(self._inference_timeout, SHORTEST_STALL)

    def _check_state(self) -> None:
        if (state := self._admission) != "ready":
            raise not_ready(state, self._stall)
        if self.drained:
            raise drained_by_operator()


def _forecast(ticket: Ticket) -> Forecast:
    """Aggregate the sample paths of a finished ticket."""
    sequence = ticket.future.result()
    assert sequence.values is not None
    return aggregate(
        ticket.request,
        sequence.values,
        sequence.scale,
        sequence.context_used,
        queue_ms=ticket.queue_seconds * 1e3,
        inference_ms=ticket.inference_seconds * 1e3,
    )
