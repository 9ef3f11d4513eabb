"""Which request goes when: order, retries, splitting and quota of one call, without any I/O.

`exchange` is a generator that the clients run. It yields `Start` (send this request, do not wait)
and `Wait` (until a response comes, at most so many seconds) and is sent the outcomes that came
meanwhile. The synchronous and the asynchronous client differ only in how they carry this out.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from kronos_api_client.connection import has_events
from kronos_api_client.errors import (
    ConnectionFailed,
    InvalidInput,
    KronosError,
    RequestTooLarge,
    WorkTooLarge,
    error_of,
    place,
    retry_after,
)
from kronos_api_client.messages import Answer, Exchange, Outcome, Request, Start, Wait
from kronos_api_client.quota import Quota

RETRIED: Final = (409, 429, 503)
NOT_SENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
"""Failures before the first byte of the request was sent."""
FIRST_WAIT: Final = 0.5
LONGEST_WAIT: Final = 8.0
"""Seconds to wait where no Retry-After says how long: doubled from the first to the longest."""
MOST_DOUBLINGS: Final = 10
JITTER: Final = 0.1
"""Share of a wait that is added at random, so that clients do not return all at once."""


def exchange(
    requests: Iterable[Request],
    *,
    max_wait: float,
    now: Callable[[], float],
    concurrency: int = 1,
) -> Exchange:
    """Send `requests`, at most `concurrency` at a time; returns the answers in order.

    429, 503 and connections that could not be made are tried again, as long as the wait ends within
    `max_wait` seconds after the start or the latest answer. A batch that exceeds a bound of the
    service is sent again as two halves, and later batches are as small. Raises `KronosError`, the
    first that cannot be retried.
    """
    call = _Call(deque(requests), max_wait, now, concurrency)
    while call.waiting or call.running:
        delay = call.delay()
        if delay == 0:
            yield Start(call.start())
            continue
        for outcome in (yield Wait(delay)):
            call.take(outcome)
    return [call.answers[number] for number in sorted(call.answers)]


@dataclass(slots=True)
class _Call:
    waiting: deque[Request]
    max_wait: float
    now: Callable[[], float]
    concurrency: int
    running: list[Request] = field(default_factory=list)
    answers: dict[int, Answer] = field(default_factory=dict)
    quota: Quota = field(default_factory=Quota)
    resume_at: float = 0.0
    """No request starts before."""
    deadline: float = field(init=False)
    failures: int = 0
    """Since the latest answer."""

    def __post_init__(self) -> None:
        self.deadline = self.now() + self.max_wait
        self.resume_at = self.now()

    def delay(self) -> float | None:
        """Seconds until the next request may start; None: a response must come first."""
        if not self.waiting or len(self.running) >= self.concurrency:
            return None
        now = self.now()
        if now < self.resume_at:
            return self.resume_at - now
        reserved = sum(len(request.items) for request in self.running)
        wait = self.quota.delay(len(self.waiting[0].items), reserved, now)
        if wait is None and self.running:
            return None
        # Where the quota refills too late, the service's own refusal says so best.
        if not wait or now + wait > self.deadline:
            return 0.0
        return wait

    def start(self) -> Request:
        request = self.waiting.popleft()
        self.running.append(request)
        return request

    def take(self, outcome: Outcome) -> None:
        """Keep the answers, or plan the next try; raises `KronosError` where there is none."""
        request, result = outcome.request, outcome.result
        self.running.remove(request)
        if isinstance(result, httpx.RequestError):
            error: KronosError = connection_failed(result)
            if not isinstance(result, NOT_SENT):
                raise error from result
            self._again(request, error, None)
            return
        self.quota.read(result, self.now())
        if result.status_code in request.accepted:
            self._keep(request, result)
            return
        error = error_of(result)
        if result.status_code == 503:
            # Full by our own requests perhaps: fewer at a time, for the rest of the call.
            self.concurrency = max(1, self.concurrency // 2)
        if result.status_code in RETRIED:
            self._again(request, error, retry_after(result))
        elif len(request.items) > 1 and _too_large(error):
            self._split(request)
        else:
            raise _named(error, request)

    def _keep(self, request: Request, response: httpx.Response) -> None:
        if request.stream:
            if not has_events(response):
                raise _unexpected(response)
            request_id = response.headers.get("X-Request-ID")
            self.answers[request.first] = Answer(response, request_id)
            return
        content = _content(response)
        contents = content if request.batch else [content]
        if not isinstance(contents, list) or len(contents) != max(1, len(request.items)):
            raise _unexpected(response)
        request_id = response.headers.get("X-Request-ID")
        for number, one in enumerate(contents, request.first):
            self.answers[number] = Answer(one, request_id)
        self.failures = 0
        self.deadline = self.now() + self.max_wait

    def _split(self, request: Request) -> None:
        """Send `request` and all that wait in parts of half its size."""
        most = (len(request.items) + 1) // 2
        parts = [part for one in (request, *self.waiting) for part in one.split(most)]
        self.waiting = deque(parts)

    def _again(self, request: Request, error: KronosError, seconds: float | None) -> None:
        if seconds is None:
            seconds = min(FIRST_WAIT * 2 ** min(self.failures, MOST_DOUBLINGS), LONGEST_WAIT)
        seconds = max(seconds, FIRST_WAIT)  # a proxy may send Retry-After: 0
        self.failures += 1
        resume_at = self.now() + seconds * (1 + JITTER * random.random())
        if resume_at > self.deadline:
            raise error
        self.resume_at = max(self.resume_at, resume_at)
        self.waiting.appendleft(request)


def _content(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        raise _unexpected(response) from None


def _unexpected(response: httpx.Response) -> KronosError:
    return KronosError(
        f"{place(response)} answered with something else than Kronos API: check the base URL",
        code=f"HTTP_{response.status_code}",
        status=response.status_code,
        request_id=response.headers.get("X-Request-ID"),
    )


def connection_failed(
    failure: httpx.RequestError | str, request_id: str | None = None
) -> ConnectionFailed:
    """The error of a connection, or of a stream that broke for the reason given."""
    message = failure if isinstance(failure, str) else _reason(failure)
    return ConnectionFailed(message, code="CONNECTION_FAILED", request_id=request_id)


def _reason(failure: httpx.RequestError) -> str:
    late = isinstance(failure, httpx.TimeoutException) and not isinstance(failure, NOT_SENT)
    message = "No response in time" if late else "The connection failed"
    return f"{message}: {str(failure) or type(failure).__name__}"


def _too_large(error: KronosError) -> bool:
    """Whether fewer series may be accepted: `error` is about the request as a whole."""
    whole = all(detail.get("item") is None for detail in error.details)
    return isinstance(error, (RequestTooLarge, WorkTooLarge)) or (
        isinstance(error, InvalidInput) and whole
    )


def _named(error: KronosError, request: Request) -> KronosError:
    """`error`, whose details name the series of the whole call instead of the item of a batch."""
    for detail in error.details:
        item = detail.get("item")
        if request.batch and isinstance(item, int) and 0 <= item < len(request.items):
            detail["item"] = request.first + item
            detail["series_id"] = request.items[item].series_id
    if named := [detail for detail in error.details if "series_id" in detail]:
        error.add_note(f"The first is of series {named[0]['series_id']!r}.")
    return error
