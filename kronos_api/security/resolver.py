"""Names of addresses and addresses of names, from DNS within a deadline.

A resolver of our own around dnspython, because a freed address goes to the next container at once:
answers are reused for seconds whatever their time to live, and the deadline excludes time in which
this process did not run (ADR 6).
"""

from __future__ import annotations

import asyncio
import math
import socket
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, Final, Generic, Literal, TypeVar

import dns.asyncbackend
import dns.asyncresolver
import dns.exception
import dns.name
import dns.nameserver
import dns.resolver
import dns.reversename

from kronos_api.deadline import within
from kronos_api.errors import StartupError
from kronos_api.security.whitelist import Address, parse_address

REUSE_SECONDS: Final = 2.0
"""Seconds for which an answer is reused, from the moment of the question."""
FRESH_SECONDS: Final = 0.1
"""The same for a failure, and before a caller is refused: refused callers cannot cause more
questions than that."""
LIFETIME: Final = 60.0
"""Deadline of dnspython by the clock, in seconds; our own deadlines are far below it."""

Result = Literal["answered", "empty", "failed"]
Observe = Callable[[Result, float], None]
Key = TypeVar("Key", bound=Hashable)
Answer = TypeVar("Answer")


def unobserved(_result: Result, _seconds: float) -> None:
    """Observes nothing."""


class ResolverUnavailable(Exception):
    """DNS did not answer in time, or answered with a failure."""


class ServerFailure(ResolverUnavailable):
    """Every nameserver answered with a failure, such as SERVFAIL."""


class Shared(Generic[Key, Answer]):
    """One question for all concurrent callers of a key; answers are reused for `REUSE_SECONDS`."""

    def __init__(
        self,
        ask: Callable[[Key], Awaitable[Answer]],
        *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask = ask
        self._now = now
        self._asked: OrderedDict[Key, tuple[float, asyncio.Future[Answer]]] = OrderedDict()

    async def __call__(
        self, key: Key, since: float = -math.inf, *, failures: float = FRESH_SECONDS
    ) -> Answer:
        """The answer for `key`, asked for at `since` or later.

        An exception is raised again for `failures` seconds.
        """
        now = self._now()
        if key in self._asked:
            asked, answer = self._asked[key]
            if asked < (max(since, now - failures) if _failed(answer) else since):
                del self._asked[key]
        while self._asked and now - next(iter(self._asked.values()))[0] >= REUSE_SECONDS:
            self._asked.popitem(last=False)
        if key not in self._asked:
            asking = asyncio.ensure_future(self._ask(key))
            # Retrieves the exception, which asyncio would report as unretrieved.
            asking.add_done_callback(_failed)
            self._asked[key] = now, asking
        answer = self._asked[key][1]
        if not answer.done():
            await asyncio.wait([answer])  # a cancelled caller leaves the answer to the others
        return answer.result()

    def asked(self, key: Key) -> float:
        """When the last answer for `key` was asked for; minus infinity if there is none."""
        return self._asked[key][0] if key in self._asked else -math.inf


def _failed(answer: asyncio.Future[Any]) -> bool:
    return answer.done() and (answer.cancelled() or answer.exception() is not None)


class _Backend:
    """dnspython's asyncio backend, whose datagram sockets wait `patience` seconds for an answer.

    dnspython's own timeout goes by the clock, and drops an answer that arrived while this process
    was stopped.
    """

    def __init__(self, patience: float) -> None:
        self._inner: Any = dns.asyncbackend.get_backend("asyncio")
        self._patience = patience

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def make_socket(self, *args: Any, **options: Any) -> Any:
        made = await self._inner.make_socket(*args, **options)
        if made.type == socket.SOCK_DGRAM:
            receive = made.recvfrom

            async def received(size: int, timeout: float | None) -> Any:
                try:
                    return await within(self._patience, receive(size, None))
                except TimeoutError:
                    raise dns.exception.Timeout(timeout=timeout) from None  # type: ignore[no-untyped-call]

            made.recvfrom = received
        return made


class Resolver:
    """Asks `servers`, or those of /etc/resolv.conf, and waits `timeout` seconds at most.

    Only time in which this process runs counts, so a stalled event loop is no failure of DNS.

    `names` gives the names in the PTR records of an address, without the last dot; `addresses`
    the addresses of a name in IP version 4 or 6. Both are empty if there are no records, and raise
    `ResolverUnavailable`. `observe` is called with the result and the seconds of each question.
    """

    def __init__(
        self,
        servers: tuple[tuple[str, int], ...] = (),
        *,
        timeout: float,
        now: Callable[[], float] = time.monotonic,
        observe: Observe = unobserved,
    ) -> None:
        try:
            self._client = dns.asyncresolver.Resolver(configure=not servers)
        except dns.resolver.NoResolverConfiguration:
            raise StartupError(
                "/etc/resolv.conf has no nameserver, which names in KRONOS_CONTAINER_WHITELIST and "
                "KRONOS_TRUSTED_PROXIES need: set KRONOS_DNS_SERVERS, such as 127.0.0.11"
            ) from None
        if servers:
            self._client.nameservers = [
                dns.nameserver.Do53Nameserver(host, port) for host, port in servers
            ]
        # A lost datagram is sent once more within `timeout`.
        self._client.timeout = timeout / 2
        self._client.lifetime = LIFETIME
        self._client.cache = None
        self._client.search = []
        self._timeout = timeout
        self._observe = observe
        self.now = now
        self._backend: Any = _Backend(timeout / 2)
        self.names = Shared(self._names, now=now)
        self.addresses = Shared(self._addresses, now=now)

    async def knows(self, address: Address) -> bool:
        """Whether `address` has a name now, or had one `FRESH_SECONDS` ago."""
        try:
            return bool(await self.names(address, self.now() - FRESH_SECONDS))
        except ResolverUnavailable:
            return False

    async def _names(self, address: Address) -> frozenset[str]:
        question = dns.reversename.from_address(str(address))
        found = await self._ask(question, "PTR")
        return frozenset(record.target.to_text(omit_final_dot=True) for record in found)

    async def _addresses(self, asked: tuple[str, int]) -> frozenset[Address]:
        name, version = asked
        question = dns.name.from_text(name)
        found = await self._ask(question, "A" if version == 4 else "AAAA")
        parsed = (parse_address(record.address) for record in found)
        return frozenset(address for address in parsed if address is not None)

    async def _resolve(self, question: dns.name.Name, kind: str) -> dns.resolver.Answer:
        return await self._client.resolve(
            question, kind, search=False, raise_on_no_answer=False, backend=self._backend
        )

    async def _ask(self, question: dns.name.Name, kind: str) -> dns.resolver.Answer | tuple[()]:
        began = self.now()
        result: Result = "failed"
        try:
            found = await self._ask_servers(question, kind)
            result = "answered" if found else "empty"
            return found
        finally:
            self._observe(result, self.now() - began)

    async def _ask_servers(
        self, question: dns.name.Name, kind: str
    ) -> dns.resolver.Answer | tuple[()]:
        try:
            return await within(self._timeout, self._resolve(question, kind))
        except dns.resolver.NXDOMAIN:
            return ()
        except dns.resolver.NoNameservers as error:
            # The fifth field of an attempt is the response of the server, if there was one.
            responses = [attempt[4] for attempt in error.kwargs["errors"]]
            failure = ServerFailure if responses and all(responses) else ResolverUnavailable
            raise failure(type(error).__name__) from error
        except (TimeoutError, OSError, dns.exception.DNSException) as error:
            raise ResolverUnavailable(type(error).__name__) from error
