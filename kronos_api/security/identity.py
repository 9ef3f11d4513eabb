"""From the address of a peer to the entry of a whitelist that names it."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass, field
from typing import Final

from kronos_api.security.local_networks import Interface, LocalNetworks
from kronos_api.security.resolver import (
    FRESH_SECONDS,
    REUSE_SECONDS,
    CannotTell,
    Resolver,
    ResolverOut,
)
from kronos_api.security.whitelist import Address, Whitelist

OTHER: Final = "other"
"""Label of callers that no entry names."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls.

    `label`: the entry that names the caller, or `other`: one of few values, fit for metrics.
    `key`: what counts as one caller: its container's name if it is known, else its address.
    """

    label: str
    key: str
    container: str | None = None

    @property
    def name(self) -> str:
        """For log lines."""
        return self.container or self.label


@dataclass(slots=True, eq=False)
class Settled:
    """Who a connection's peer was found to be.

    `confirmed`: whether DNS has named it by an answer that is younger than the connection.
    """

    caller: Caller
    confirmed: bool = False


@dataclass(slots=True, eq=False)
class Connection:
    """What is known of one TCP connection, which was opened at `opened` by the monotonic clock.

    `is_proxy`: whether the peer was a trusted proxy when it first called, None before that;
    `proxy` is what it was found to be. `caller`: the same for a peer that calls for itself.
    """

    peer: str | None
    opened: float = field(default_factory=time.monotonic)
    is_proxy: bool | None = None
    proxy: Settled | None = None
    caller: Settled | None = None


class Identity:
    """Finds the entry that names an address, by itself or by its names in DNS.

    Names are asked for only if some entry is a name and the address is next to this host; only
    answers about this host's own subnets count.
    """

    def __init__(self, whitelist: Whitelist, surroundings: LocalNetworks | None = None) -> None:
        self.whitelist = whitelist
        self.surroundings = surroundings
        self.unanswered = False
        """Whether DNS did not say who the last caller was that it was asked about."""

    async def settle(
        self, address: Address, *, local: bool = True, refresh: bool = False
    ) -> Caller | None:
        """The caller at `address`, None if no entry names it; raises `ResolverOut`.

        `local`: this host saw the address itself, rather than a proxy on another. `refresh`: by no
        answer that is older than `FRESH_SECONDS`.
        """
        entry = self.whitelist.by_address(address, local=local)
        if entry is not None:
            return Caller(entry, str(address))
        if not self.whitelist.names or address.is_loopback:
            return None
        assert self.surroundings is not None, "names need somebody to ask"
        beside = self.surroundings.next_to(address)
        if beside is None:
            return None
        try:
            caller = await self._by_name(address, beside, self.surroundings, refresh)
        except ResolverOut:
            self.unanswered = True
            raise
        self.unanswered = False
        return caller

    def settled(self, caller: Caller, address: Address, opened: float) -> Settled:
        """What a connection from `address`, opened at `opened`, is settled as."""
        if self.surroundings is None or caller.label not in self.whitelist.names:
            return Settled(caller)
        resolver = self.surroundings.resolver
        if caller.label == caller.container:
            asked = resolver.names.asked(address)
        else:
            asked = resolver.addresses.asked((caller.label, address.version))
        return Settled(caller, confirmed=asked >= opened)

    async def holds(self, settled: Settled, address: Address, opened: float) -> bool:
        """Whether a connection from `address`, opened at `opened`, still comes from `settled`.

        An entry that names the address by itself holds for as long as the connection. One that is
        a name is looked up for each request, from answers of the last `REUSE_SECONDS`: the address
        may belong to another container by now. While DNS is out, a confirmed caller holds, for an
        outage is no proof of a change; for others `ResolverOut` is raised.
        """
        caller = settled.caller
        if caller.label not in self.whitelist.names:
            return True
        assert self.surroundings is not None
        beside = self.surroundings.next_to(address)
        if beside is None:
            return False
        try:
            held = await self._still(settled, address, beside, self.surroundings, opened)
        except ResolverOut as error:
            if await _nobody([error], beside, self.surroundings.resolver):
                return False
            self.unanswered = True
            if not settled.confirmed:
                raise
            return True
        self.unanswered = False
        settled.confirmed = held
        return held

    async def _still(
        self,
        settled: Settled,
        address: Address,
        beside: Interface,
        surroundings: LocalNetworks,
        since: float,
    ) -> bool:
        """Whether what named the caller at `address` does so by answers asked for since `since`."""
        resolver = surroundings.resolver
        caller = settled.caller
        # A confirmed caller goes on in an outage, and is not to wait for it at each request.
        failures = REUSE_SECONDS if settled.confirmed else FRESH_SECONDS
        by_service = caller.label != caller.container
        if by_service:
            asked = (caller.label, address.version)
            if address not in await resolver.addresses(asked, since, failures=failures):
                return False
        if caller.container is None:
            return True
        try:
            name = await self._container(address, beside, surroundings, since, failures=failures)
        except ResolverOut:
            if by_service:  # whose own answer suffices
                return True
            raise
        return name == caller.container

    async def _by_name(
        self, address: Address, beside: Interface, surroundings: LocalNetworks, refresh: bool
    ) -> Caller | None:
        resolver = surroundings.resolver
        since = resolver.now() - FRESH_SECONDS if refresh else -math.inf
        asked = [
            asyncio.ensure_future(resolver.addresses((name, address.version), since))
            for name in self.whitelist.names
        ]
        container = asyncio.ensure_future(self._container(address, beside, surroundings, since))
        try:
            # The container's name goes first, so that one caller has one key whoever is faster.
            (told,) = await asyncio.gather(container, return_exceptions=True)
            name = told if isinstance(told, str) else None
            if name is not None and name in self.whitelist.names:
                return Caller(name, name, name)
            answers = await asyncio.gather(*asked, return_exceptions=True)
        finally:
            for task in (container, *asked):
                task.cancel()
        for entry, answer in zip(self.whitelist.names, answers, strict=True):
            if isinstance(answer, frozenset) and address in answer:
                return Caller(entry, name or str(address), name)
        missing = [one for one in (told, *answers) if isinstance(one, BaseException)]
        if missing and not await _nobody(missing, beside, resolver):
            raise missing[0]
        return None

    async def _container(
        self,
        address: Address,
        beside: Interface,
        surroundings: LocalNetworks,
        since: float,
        *,
        failures: float = FRESH_SECONDS,
    ) -> str | None:
        """The name of the container at `address`, whose PTR must be `<name>.<network>`."""
        full_names, networks = await asyncio.gather(
            surroundings.resolver.names(address, since, failures=failures),
            surroundings.networks(beside, failures=failures),
        )
        found = [
            full.removesuffix(f".{network}")
            for full in sorted(full_names)
            for network in networks
            if full.endswith(f".{network}")
        ]
        listed = [name for name in found if name in self.whitelist.names]
        return next(iter(listed + found), None)


async def _nobody(missing: list[BaseException], beside: Interface, resolver: Resolver) -> bool:
    """Whether answers are missing only because nobody has these names.

    Docker's nameserver says on an internal network that it cannot tell of a name that no container
    has, for it has nobody to pass the question to. One that is out does not know this host either.
    """
    if not all(isinstance(one, CannotTell) for one in missing):
        return False
    return await resolver.knows(beside.ip)
