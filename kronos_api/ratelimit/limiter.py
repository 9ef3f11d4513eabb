"""Grants or refuses the forecasts of a caller, with a local fallback for an unavailable store.

A limiter of our own, because no library decides several quotas at once, exactly over all workers
and replicas, and keeps a bound while its store is unavailable (ADR 7).

While the store answers within `BOUND`, its count is exact. Otherwise this worker is degraded: it
grants its share of each window, and in the current window its share of the remainder at the store's
last answer. At most one call waits for a store that is unavailable. After that, only a probe in the
background calls it and reports the local grants, until the store has answered twice: by then, the
other workers have reported theirs.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

import structlog

from kronos_api.deadline import within
from kronos_api.ratelimit.quotas import Quota, Quotas
from kronos_api.ratelimit.store import Reading, Store, StoreUnavailable, WindowCounter
from kronos_api.telemetry.metrics import metrics

BOUND: Final = 0.25
"""Seconds that a call waits for the store."""
PROBE_PAUSE: Final = 2.0
PROBE_BOUND: Final = 4.0
"""Seconds that the probe waits for the store, for each caller that it reports."""
SWEEP_PAUSE: Final = 60.0

Result = TypeVar("Result")
log = structlog.stdlib.get_logger("kronos_api.ratelimit")


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a call is granted, and the state of its tightest quota after it.

    quota: the tightest. reset: end of its window, in seconds since the epoch. wait: seconds until
    the call can be granted. windows: the number of each quota's window that was charged.
    """

    allowed: bool
    quota: Quota
    remaining: int
    reset: int
    wait: float
    windows: tuple[int, ...] = ()

    @property
    def limit(self) -> int:
        """Forecasts in each window of the quota."""
        return self.quota.amount


class Limiter:
    """Grants forecasts by `quotas`, counted in `store`, which `workers` share in all."""

    def __init__(self, quotas: Quotas, store: Store, *, workers: int = 1) -> None:
        self.quotas = quotas
        self.store = store
        self.workers = workers
        self._counters: dict[tuple[str, Quota], WindowCounter] = {}
        self._swept = time.time()
        self._probe: asyncio.Task[None] | None = None

    @property
    def degraded(self) -> bool:
        """Whether this worker grants its share locally, because the store is unavailable."""
        return self._probe is not None

    def share(self, amount: int) -> int:
        """Forecasts of `amount` that one degraded worker grants."""
        return max(1, amount // self.workers)

    async def start(self) -> None:
        """Before the first call; an unavailable store is no error.

        Raises:
            StartupError: the store has a fault that lasts, such as a folder that is not writable.
        """
        metrics.rate_limit_degraded.set(0)
        await self.store.open()
        try:
            await _within(PROBE_BOUND, self.store.check())
        except StoreUnavailable as error:
            self._degrade(error)

    async def stop(self) -> None:
        """After the last call."""
        if self._probe is not None:
            self._probe.cancel()
            await asyncio.gather(self._probe, return_exceptions=True)
            self._probe = None
        await self.store.close()

    async def take(self, caller: str, route: str, cost: int = 1) -> Verdict:
        """Grant `cost` forecasts of `route` to `caller`, or none of them."""
        counters = self._counters_of(caller, self.quotas.of(route))
        for counter in counters:
            counter.in_flight += 1
        try:
            if not self.degraded:
                try:
                    counted = self.store.count(caller, counters, cost)
                    allowed, readings = await _within(BOUND, counted)
                    return _by_store(counters, allowed, readings, cost)
                except StoreUnavailable as error:
                    self._degrade(error)
            return self._decide_locally(counters, cost)
        finally:
            for counter in counters:
                counter.in_flight -= 1

    async def give_back(self, caller: str, route: str, cost: int, granted: Verdict) -> Verdict:
        """Return the `cost` forecasts of `granted` in the windows that have not ended.

        Returns the state of the quotas after it. An unavailable store gets it with the next report.
        """
        counters = self._counters_of(caller, self.quotas.of(route))
        for counter, window in zip(counters, granted.windows, strict=True):
            if counter.window == window:
                counter.give_back(cost)
        return await self.take(caller, route, 0)

    def _decide_locally(self, counters: Sequence[WindowCounter], cost: int) -> Verdict:
        """Grant from this worker's share."""
        now = time.time()
        available = []
        for counter in counters:
            quota = counter.quota
            current = quota.window(now)
            if counter.window != current + 1:  # the store's clock can be ahead of ours
                counter.advance(current)
            part = (quota.amount - counter.last_total) // self.workers
            share = part if counter.last_total else self.share(quota.amount)
            available.append(share - counter.unreported)
        allowed = cost <= min(available)
        if allowed:
            for counter in counters:
                counter.grant_locally(cost)
        left = [max(0, one - cost if allowed else one) for one in available]
        ends = [counter.quota.end(counter.window) - now for counter in counters]
        windows = tuple(counter.window for counter in counters)
        return replace(_verdict(counters, allowed, left, ends, cost), windows=windows)

    def _counters_of(self, caller: str, quotas: Sequence[Quota]) -> list[WindowCounter]:
        now = time.time()
        if abs(now - self._swept) > SWEEP_PAUSE:
            self._swept = now
            self._counters = {
                key: counter
                for key, counter in self._counters.items()
                if counter.in_flight or counter.window >= counter.quota.window(now)
            }
        return [
            self._counters.setdefault((caller, quota), WindowCounter(quota)) for quota in quotas
        ]

    def _degrade(self, error: StoreUnavailable) -> None:
        metrics.rate_limit_store_failures.inc()
        if self.degraded:
            return
        background = contextvars.Context()  # not that of the request that noticed it
        self._probe = asyncio.Task(self._wait_for_store(), context=background)
        metrics.rate_limit_degraded.set(1)
        background.run(
            log.warning,
            "rate_limit_store_unavailable",
            store=self.store.kind,
            reason=str(error),
            share_per_minute=self.share(self.quotas.per_minute),
        )

    async def _wait_for_store(self) -> None:
        answered = 0
        while answered < 2:
            await asyncio.sleep(PROBE_PAUSE)
            try:
                await self._report()
                answered += 1
            except StoreUnavailable:
                answered = 0
        self._probe = None
        metrics.rate_limit_degraded.set(0)
        log.info("rate_limit_store_recovered", store=self.store.kind)

    async def _report(self) -> None:
        """Check the store, and report the forecasts that were granted locally."""
        await _within(PROBE_BOUND, self.store.check())
        for (caller, quota), counter in list(self._counters.items()):
            if counter.granted and counter.window == quota.window(time.time()):
                await _within(PROBE_BOUND, self._report_counter(caller, counter))

    async def _report_counter(self, caller: str, counter: WindowCounter) -> None:
        _, (reading,) = await self.store.count(caller, [counter], 0)
        counter.update(reading, 0)


def _by_store(
    counters: Sequence[WindowCounter], allowed: bool, readings: Sequence[Reading], cost: int
) -> Verdict:
    """The verdict of the store, whose answer updates the counters."""
    for counter, reading in zip(counters, readings, strict=True):
        counter.update(reading, cost if allowed else 0)
    left = [
        max(0, counter.quota.amount - reading.total)
        for counter, reading in zip(counters, readings, strict=True)
    ]
    verdict = _verdict(counters, allowed, left, [reading.left for reading in readings], cost)
    return replace(verdict, windows=tuple(reading.window for reading in readings))


def _verdict(
    counters: Sequence[WindowCounter],
    allowed: bool,
    left: Sequence[int],
    seconds: Sequence[float],
    cost: int,
) -> Verdict:
    """The verdict by the quota with the least left, `seconds` before its window ends."""
    tightest = min(range(len(left)), key=lambda n: (left[n], -seconds[n]))
    # A call passes when the windows of all quotas that are short of `cost` have ended.
    waits = [wait for rest, wait in zip(left, seconds, strict=True) if rest < cost]
    return Verdict(
        allowed,
        counters[tightest].quota,
        left[tightest],
        round(time.time() + seconds[tightest]),
        0.0 if allowed else max(waits, default=seconds[tightest]),
    )


async def _within(bound: float, call: Coroutine[Any, Any, Result]) -> Result:
    """The result of `call`; raises `StoreUnavailable` after `bound` seconds of this process."""
    try:
        return await within(bound, call)
    except StoreUnavailable:
        raise
    except TimeoutError as error:
        raise StoreUnavailable(str(error)) from None
    except Exception:
        log.exception("rate_limit_store_exception")
        raise StoreUnavailable("an unhandled exception") from None
