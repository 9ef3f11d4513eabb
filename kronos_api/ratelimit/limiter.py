"""Decides whether a caller's forecast is granted, and goes on deciding when the store is out.

While the store answers within `BOUND`, its count is exact. When it does not, this worker counts
alone: it grants its share of every window, and of the present one its share of what was left when
it last heard. A call waits for the store at most once; after that, only a probe in the background
asks, and tells what was granted, until it was answered twice: by then the other workers have told
it, too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

import structlog

from kronos_api.deadline import within
from kronos_api.ratelimit.quotas import Quota, Quotas
from kronos_api.ratelimit.store import Reading, Store, StoreOut, Tally
from kronos_api.telemetry.metrics import metrics

BOUND: Final = 0.25
"""Seconds that a call may wait for the store."""
PROBE_PAUSE: Final = 2.0
PROBE_BOUND: Final = 4.0
"""Seconds in which a store must answer when no call waits for it, for each caller that it is told
of."""
SWEEP_PAUSE: Final = 60.0

Result = TypeVar("Result")
log = structlog.stdlib.get_logger("kronos_api.ratelimit")


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a call is granted, and how its tightest quota stands after it.

    reset: when that quota's window ends, in seconds since the epoch. wait: seconds until the
    call might be granted. windows: the number of each quota's window that was charged.
    """

    allowed: bool
    limit: int
    remaining: int
    reset: int
    wait: float
    windows: tuple[int, ...] = ()


class Limiter:
    """Grants forecasts by `quotas`, counted in `store`, with `workers` in all to share them."""

    def __init__(self, quotas: Quotas, store: Store, *, workers: int = 1) -> None:
        self.quotas = quotas
        self.store = store
        self.workers = workers
        self._tallies: dict[tuple[str, Quota], Tally] = {}
        self._swept = time.time()
        self._probe: asyncio.Task[None] | None = None

    @property
    def alone(self) -> bool:
        """Whether this worker counts by itself, because the store is out."""
        return self._probe is not None

    def share(self, amount: int) -> int:
        """What one worker grants of `amount` when it counts alone."""
        return max(1, amount // self.workers)

    async def start(self) -> None:
        """Before the first call; raises `StartupError`. A store that is merely out is no error."""
        metrics.rate_limit_degraded.set(0)
        await self.store.open()
        try:
            await _within(PROBE_BOUND, self.store.check())
        except StoreOut as error:
            self._go_alone(error)

    async def stop(self) -> None:
        """After the last call."""
        if self._probe is not None:
            self._probe.cancel()
            await asyncio.gather(self._probe, return_exceptions=True)
            self._probe = None
        await self.store.close()

    async def take(self, caller: str, route: str, cost: int = 1) -> Verdict:
        """Grant `cost` forecasts of `route` to `caller`, or none of them."""
        tallies = self._known(caller, self.quotas.of(route))
        for tally in tallies:
            tally.asking += 1
        try:
            if not self.alone:
                try:
                    counted = self.store.count(caller, tallies, cost)
                    allowed, readings = await _within(BOUND, counted)
                    return _heard(tallies, allowed, readings, cost)
                except StoreOut as error:
                    self._go_alone(error)
            return self._decide(tallies, cost)
        finally:
            for tally in tallies:
                tally.asking -= 1

    async def give_back(self, caller: str, route: str, cost: int, granted: Verdict) -> Verdict:
        """Take back what `granted` granted, in those windows that have not ended; how quotas stand.

        While the store is out it is told later, as it is of grants.
        """
        tallies = self._known(caller, self.quotas.of(route))
        for tally, window in zip(tallies, granted.windows, strict=True):
            if tally.window == window:
                tally.give_back(cost)
        return await self.take(caller, route, 0)

    def _decide(self, tallies: Sequence[Tally], cost: int) -> Verdict:
        """By what this worker knows alone."""
        now = time.time()
        room = []
        for tally in tallies:
            quota = tally.quota
            current = quota.window(now)
            if tally.window != current + 1:  # the store's clock may be ahead of ours
                tally.turn(current)
            part = (quota.amount - tally.heard) // self.workers
            room.append((part if tally.heard else self.share(quota.amount)) - tally.since)
        allowed = cost <= min(room)
        if allowed:
            for tally in tallies:
                tally.grant(cost)
        left = [max(0, one - cost if allowed else one) for one in room]
        ends = [tally.quota.end(tally.window) - now for tally in tallies]
        windows = tuple(tally.window for tally in tallies)
        return replace(_verdict(tallies, allowed, left, ends, cost), windows=windows)

    def _known(self, caller: str, quotas: Sequence[Quota]) -> list[Tally]:
        now = time.time()
        if abs(now - self._swept) > SWEEP_PAUSE:
            self._swept = now
            self._tallies = {
                place: tally
                for place, tally in self._tallies.items()
                if tally.asking or tally.window >= tally.quota.window(now)
            }
        return [self._tallies.setdefault((caller, quota), Tally(quota)) for quota in quotas]

    def _go_alone(self, error: StoreOut) -> None:
        metrics.rate_limit_store_failures.inc()
        if self.alone:
            return
        self._probe = asyncio.create_task(self._wait_for_store())
        metrics.rate_limit_degraded.set(1)
        log.warning(
            "rate limit store is out: this worker grants its share",
            store=self.store.kind,
            reason=str(error),
            share_per_minute=self.share(self.quotas.per_minute),
        )

    async def _wait_for_store(self) -> None:
        answered = 0
        while answered < 2:
            await asyncio.sleep(PROBE_PAUSE)
            try:
                await self._tell_store()
                answered += 1
            except StoreOut:
                answered = 0
        self._probe = None
        metrics.rate_limit_degraded.set(0)
        log.info("rate limit store is back", store=self.store.kind)

    async def _tell_store(self) -> None:
        """Ask whether the store is back, and tell it what was granted in the meantime."""
        await _within(PROBE_BOUND, self.store.check())
        for (caller, quota), tally in list(self._tallies.items()):
            if tally.mine and tally.window == quota.window(time.time()):
                await _within(PROBE_BOUND, self._tell(caller, tally))

    async def _tell(self, caller: str, tally: Tally) -> None:
        _, (reading,) = await self.store.count(caller, [tally], 0)
        tally.hear(reading, 0)


def _heard(
    tallies: Sequence[Tally], allowed: bool, readings: Sequence[Reading], cost: int
) -> Verdict:
    """Note what the store said."""
    for tally, reading in zip(tallies, readings, strict=True):
        tally.hear(reading, cost if allowed else 0)
    left = [
        max(0, tally.quota.amount - reading.total)
        for tally, reading in zip(tallies, readings, strict=True)
    ]
    verdict = _verdict(tallies, allowed, left, [reading.left for reading in readings], cost)
    return replace(verdict, windows=tuple(reading.window for reading in readings))


def _verdict(
    tallies: Sequence[Tally],
    allowed: bool,
    left: Sequence[int],
    seconds: Sequence[float],
    cost: int,
) -> Verdict:
    """By the quota with the least left, `seconds` before its window ends."""
    tightest = min(range(len(left)), key=lambda n: (left[n], -seconds[n]))
    # Every quota without room must open before the call can pass.
    waits = [wait for room, wait in zip(left, seconds, strict=True) if room < cost]
    return Verdict(
        allowed,
        tallies[tightest].quota.amount,
        left[tightest],
        round(time.time() + seconds[tightest]),
        0.0 if allowed else max(waits, default=seconds[tightest]),
    )


async def _within(bound: float, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of `work`; raises `StoreOut` after `bound` seconds in which this process ran."""
    try:
        return await within(bound, work)
    except StoreOut:
        raise
    except TimeoutError as error:
        raise StoreOut(str(error)) from None
    except Exception:
        log.exception("defect of the rate limit's store")
        raise StoreOut("a defect") from None
