"""Start and stop of the service: checkpoints, the predictor that loads them, the limiter."""

from __future__ import annotations

import asyncio
import gc
import math
import os
import time
from typing import TYPE_CHECKING, Final

import structlog

from kronos_api.batching.refusals import State
from kronos_api.build_info import this_build
from kronos_api.capacity import share, threads
from kronos_api.checkpoints.hub import locate
from kronos_api.checkpoints.info import Source
from kronos_api.checkpoints.loader import inspect
from kronos_api.config import Settings
from kronos_api.controls import Controls, Orders, control_directory
from kronos_api.daemon_thread import run_in_daemon_thread
from kronos_api.engine.build import build_engine
from kronos_api.engine.engine import Engine
from kronos_api.errors import StartupError
from kronos_api.predictor import AsyncPredictor
from kronos_api.stores import cache_of, limiter_of
from kronos_api.telemetry import logging, process_metrics
from kronos_api.telemetry.known_labels import KnownLabels
from kronos_api.telemetry.metrics import metrics
from kronos_api.telemetry.replica import record_replica
from kronos_api.telemetry.tracing import build_spans

if TYPE_CHECKING:
    from kronos_api.telemetry.spans import Spans

LAST_SECOND: Final = 1.0
"""Seconds that the model has to stop, even if the time of the whole stop is over."""

log = structlog.stdlib.get_logger(__name__)


def preload() -> None:
    """Import the modules that building a network needs: it takes longer than reading weights.

    Before a fork, it is done once for all processes. It starts no thread.
    """
    inspect(locate(None, "model", timeout=0), locate(None, "tokenizer", timeout=0))


class Checkpoints:
    """The checkpoints that the settings name."""

    def __init__(self, settings: Settings, workers: int = 1) -> None:
        self.settings = settings
        self.workers = workers
        self.sources: tuple[Source, Source] | None = None

    def find(self) -> None:
        """Fetch model and tokenizer if need be and check them; raises `StartupError`."""
        timeout = self.settings.startup_timeout
        model = locate(self.settings.model_source, "model", timeout=timeout)
        tokenizer = locate(self.settings.tokenizer_source, "tokenizer", timeout=timeout)
        inspect(model, tokenizer)
        self.sources = model, tokenizer

    def load(self) -> Engine:
        """The engine that runs them; called in the engine's thread."""
        settings = self.settings
        assert self.sources is not None
        model, tokenizer = self.sources
        return build_engine(
            model,
            tokenizer,
            device=settings.device,
            dtype=settings.dtype,
            max_context=settings.max_context,
            window_policy=settings.window_policy,
            torch_threads=threads(settings, self.workers),
        )


class Lifecycle:
    """Starts and stops the parts of the service that run in the background."""

    def __init__(
        self, settings: Settings, predictor: AsyncPredictor | None, workers: int = 1
    ) -> None:
        self.labels = KnownLabels()
        self.controls = Controls(control_directory(settings.control_dir, settings.port))
        self.settings = settings
        self.checkpoints = None
        if predictor is None:
            self.checkpoints = Checkpoints(settings, workers)
            own = share(settings, workers)
            predictor = AsyncPredictor(
                self.checkpoints.load,
                max_queue=own.max_queue,
                inference_timeout=settings.inference_timeout,
                kv_cache_mb=own.kv_cache_mb,
            )
        self.predictor = predictor
        self.limiter = limiter_of(settings, workers) if settings.rate_limit_enabled else None
        self.cache = cache_of(settings)
        self.ended = True
        self._obeyed = Orders()
        self.spans: Spans | None = None
        self._ready_by = self._stop_by = math.inf
        self._watches: list[asyncio.Task[None]] = []

    @property
    def state(self) -> State:
        """Whether it serves, and if not, why."""
        return self.predictor.state

    @property
    def forecasts(self) -> int:
        """Series that wait for the model or are in it."""
        return self.predictor.queue_depth + self.predictor.active

    async def start(self) -> None:
        """Before the port opens: check the checkpoints and begin to load them."""
        self._ready_by = time.monotonic() + self.settings.startup_timeout
        if self.checkpoints is not None:
            try:
                async with asyncio.timeout(self.settings.startup_timeout):
                    finding = run_in_daemon_thread(self.checkpoints.find, "checkpoints")
                    await asyncio.wrap_future(finding)
            except TimeoutError:
                raise too_late(self.settings, "found and checked") from None
        if not self.settings.security_enabled:
            log.warning("security_disabled", setting="KRONOS_SECURITY_ENABLED")
        if self.limiter is not None:
            await self.limiter.start()
        await self.predictor.start()
        self._expose_metrics()
        build = this_build()
        self.spans = build_spans(os.environ, build.version)
        metrics.build_info.labels(build.version, build.commit).set(1)
        recording = process_metrics.record_until_cancelled(self.predictor)
        orders = self.controls.follow(self._obey)
        for watch in (self._log_when_ready(), recording, orders):
            self._watches.append(asyncio.create_task(watch))

    def mark_unready(self, seconds: float | None = None) -> None:
        """Report not ready from here on; requests are still answered.

        `stop` will return within `seconds`, by default KRONOS_SHUTDOWN_TIMEOUT, plus `LAST_SECOND`.
        May be called again and at any time, by signal handlers too.
        """
        seconds = self.settings.shutdown_timeout if seconds is None else seconds
        self._stop_by = min(self._stop_by, time.monotonic() + seconds)
        self.predictor.mark_unready()

    async def stop(self) -> None:
        """After the last connection: finish accepted forecasts, unload the model."""
        self.mark_unready()
        left = self._stop_by - time.monotonic()
        if self.predictor.failed:  # nothing was accepted, and a load that hangs never ends
            left = 0.0
        self.ended = await self.predictor.stop(max(left, LAST_SECOND))
        if self.ended and self._watches:
            # The model has loaded or failed; the first watch logs which.
            await asyncio.wait(self._watches[:1], timeout=LAST_SECOND)
        for watch in self._watches:
            watch.cancel()
        if self.limiter is not None:
            await self.limiter.stop()
        if self.cache is not None:
            await self.cache.stop()
        if self.spans is not None:
            await asyncio.to_thread(self.spans.stop, LAST_SECOND)
        if self.ended:
            log.info("model_unloaded")
        else:
            log.warning("engine_stop_timeout", setting="KRONOS_SHUTDOWN_TIMEOUT")

    def _obey(self, orders: Orders) -> None:
        """Carry out what the operator has ordered; called at the start and after a change."""
        logging.set_level(orders.log_level or self.settings.log_level)
        self.predictor.drained = orders.drained
        metrics.drained.set(orders.drained)
        if orders != Orders() or self._obeyed != orders:
            log.warning(
                "operator_orders",
                log_level=orders.log_level,
                drained=orders.drained,
                blocked=sorted(orders.blocked),
            )
        self._obeyed = orders

    def _expose_metrics(self) -> None:
        """Count this process as a worker; expose its limits and the labels that are known."""
        record_replica(self.settings.replicas)
        self.labels.expose()
        metrics.workers.set(1)
        metrics.queue_limit.set(self.predictor.max_queue)
        metrics.kv_cache_limit.set(self.predictor.kv_cache_limit)
        metrics.concurrent_requests_limit.set(self.settings.concurrency)
        limited = self.settings.rate_limit_enabled
        metrics.rate_limit_per_minute.set(self.settings.rate_limit_per_minute if limited else 0)

    async def _log_when_ready(self) -> None:
        try:
            async with asyncio.timeout(self._ready_by - time.monotonic()):
                await self.predictor.ready()
        except TimeoutError:
            error = too_late(self.settings, "loaded")
            self.predictor.give_up(error)
            log.error("model_load_failed", reason=str(error))
            return
        except StartupError as error:
            log.error("model_load_failed", reason=str(error))
            return
        # The model stays: a full garbage collection that skips it takes a tenth of the time.
        gc.freeze()
        info = self.predictor.info
        assert info is not None
        named = {"model": info.model.version, "tokenizer": info.tokenizer.version}
        named |= {"device": info.device, "dtype": info.dtype}
        metrics.model_info.labels(**named, demo=str(info.demo).lower()).set(1)
        log.info("model_ready", **named, kernels=info.kernels, demo=info.demo)
        if info.dtype_warning:
            log.warning("dtype_fallback", reason=info.dtype_warning)
        if info.device_warning:
            log.warning("device_fallback", reason=info.device_warning)
        if info.demo:
            log.warning("demo_checkpoint", hint="not for trading: set KRONOS_MODEL_ID")


def too_late(settings: Settings, done: str) -> StartupError:
    """The error of a start whose checkpoints were not `done` in time."""
    sources = settings.model_source, settings.tokenizer_source
    named = " and ".join(source for source in sources if source) or "bundled checkpoint"
    return StartupError(
        f"{named}: not {done} within KRONOS_STARTUP_TIMEOUT ({settings.startup_timeout:g} s)"
    )
