"""Identifies the caller at an address: the entry of a whitelist that covers or names it."""

from __future__ import annotations

import asyncio
import math

from kronos_api.security.callers import Caller, Identification
from kronos_api.security.local_networks import Interface, LocalNetworks
from kronos_api.security.resolver import (
    FRESH_SECONDS,
    REUSE_SECONDS,
    Resolver,
    ResolverUnavailable,
    ServerFailure,
)
from kronos_api.security.whitelist import Address, Whitelist


class Identity:
    """Finds the entry of `whitelist` for an address, by the address itself or its names in DNS.

    DNS is asked only if some entry is a name and the address is in a subnet of this host, or in a
    further block of `local_networks`; only answers about these count.
    """

    def __init__(self, whitelist: Whitelist, local_networks: LocalNetworks | None = None) -> None:
        self.whitelist = whitelist
        self.local_networks = local_networks
        self.dns_failed = False
        """Whether DNS failed at the last question about a caller."""

    async def identify(
        self, address: Address, *, local: bool = True, refresh: bool = False
    ) -> Caller | None:
        """The caller at `address`; None if no entry covers or names it.

        `local`: this host saw the address itself, not a proxy on another host. `refresh`: use no
        answer that is older than `FRESH_SECONDS`.

        Raises:
            ResolverUnavailable: only DNS could name the caller, and it does not answer.
        """
        entry = self.whitelist.by_address(address, local=local)
        if entry is not None:
            return Caller(entry, str(address))
        if not self.whitelist.names or address.is_loopback:
            return None
        assert self.local_networks is not None, "entries that are names need a resolver"
        interface = self.local_networks.interface_for(address)
        if interface is None:
            return None
        try:
            caller = await self._by_name(address, interface, self.local_networks, refresh)
        except ResolverUnavailable:
            self.dns_failed = True
            raise
        self.dns_failed = False
        return caller

    async def container_at(self, address: Address) -> str | None:
        """The name of the container at `address`, listed or not; None if DNS does not name it."""
        if self.local_networks is None or not self.whitelist.names:
            return None
        interface = self.local_networks.interface_for(address)
        if interface is None:
            return None
        try:
            return await self._container(address, interface, self.local_networks, -math.inf)
        except ResolverUnavailable:
            return None

    def identification(self, caller: Caller, address: Address, opened: float) -> Identification:
        """The identification of a connection from `address`, opened at `opened`, as `caller`."""
        if self.local_networks is None or caller.label not in self.whitelist.names:
            return Identification(caller)
        resolver = self.local_networks.resolver
        if caller.label == caller.container:
            asked = resolver.names.asked(address)
        else:
            asked = resolver.addresses.asked((caller.label, address.version))
        return Identification(caller, confirmed=asked >= opened)

    async def holds(self, found: Identification, address: Address, opened: float) -> bool:
        """Whether `found` still holds for a connection from `address`, opened at `opened`.

        An entry that covers the address holds as long as the connection. An entry that is a name
        is looked up for each request, in answers of the last `REUSE_SECONDS`: the address can
        belong to another container by now. While DNS does not answer, a confirmed caller holds,
        because an outage is no proof of a change; for others `ResolverUnavailable` is raised.
        """
        caller = found.caller
        if caller.label not in self.whitelist.names:
            return True
        assert self.local_networks is not None
        interface = self.local_networks.interface_for(address)
        if interface is None:
            return False
        try:
            held = await self._is_named(found, address, interface, self.local_networks, opened)
        except ResolverUnavailable as error:
            if await _are_unknown_names([error], interface, self.local_networks.resolver):
                return False
            self.dns_failed = True
            if not found.confirmed:
                raise
            return True
        self.dns_failed = False
        found.confirmed = held
        return held

    async def _is_named(
        self,
        found: Identification,
        address: Address,
        interface: Interface,
        local_networks: LocalNetworks,
        since: float,
    ) -> bool:
        """Whether answers that were asked for since `since` still name the caller at `address`."""
        resolver = local_networks.resolver
        caller = found.caller
        # A confirmed caller goes on in an outage, without waiting for DNS at each request.
        failures = REUSE_SECONDS if found.confirmed else FRESH_SECONDS
        by_service = caller.label != caller.container
        if by_service:
            asked = (caller.label, address.version)
            if address not in await resolver.addresses(asked, since, failures=failures):
                return False
        if caller.container is None:
            return True
        try:
            name = await self._container(
                address, interface, local_networks, since, failures=failures
            )
        except ResolverUnavailable:
            if by_service:  # the answer about the service suffices
                return True
            raise
        return name == caller.container

    async def _by_name(
        self, address: Address, interface: Interface, local_networks: LocalNetworks, refresh: bool
    ) -> Caller | None:
        resolver = local_networks.resolver
        since = resolver.now() - FRESH_SECONDS if refresh else -math.inf
        asked = [
            asyncio.ensure_future(resolver.addresses((name, address.version), since))
            for name in self.whitelist.names
        ]
        container = asyncio.ensure_future(
            self._container(address, interface, local_networks, since)
        )
        try:
            # The container's name takes precedence, so that one caller has one key whichever
            # answer is faster.
            (answer_of_container,) = await asyncio.gather(container, return_exceptions=True)
            name = answer_of_container if isinstance(answer_of_container, str) else None
            if name is not None and name in self.whitelist.names:
                return Caller(name, name, name)
            answers = await asyncio.gather(*asked, return_exceptions=True)
        finally:
            for task in (container, *asked):
                task.cancel()
        for entry, answer in zip(self.whitelist.names, answers, strict=True):
            if isinstance(answer, frozenset) and address in answer:
                return Caller(entry, name or str(address), name)
        failures = [
            one for one in (answer_of_container, *answers) if isinstance(one, BaseException)
        ]
        if failures and not await _are_unknown_names(failures, interface, resolver):
            raise failures[0]
        return None

    async def _container(
        self,
        address: Address,
        interface: Interface,
        local_networks: LocalNetworks,
        since: float,
        *,
        failures: float = FRESH_SECONDS,
    ) -> str | None:
        """The name of the container at `address`, whose PTR must be `<name>.<network>`."""
        full_names, networks = await asyncio.gather(
            local_networks.resolver.names(address, since, failures=failures),
            local_networks.networks(interface, failures=failures),
        )
        found = [
            full.removesuffix(f".{network}")
            for full in sorted(full_names)
            for network in networks
            if full.endswith(f".{network}")
        ]
        listed = [name for name in found if name in self.whitelist.names]
        return next(iter(listed + found), None)


async def _are_unknown_names(
    failures: list[BaseException], interface: Interface, resolver: Resolver
) -> bool:
    """Whether DNS failed only because no container has the names.

    On an internal network, Docker's nameserver answers SERVFAIL to a question about a name that no
    container has, because it has no other nameserver to pass it to. If the nameserver itself fails,
    it does not know this host's own name either.
    """
    if not all(isinstance(one, ServerFailure) for one in failures):
        return False
    return await resolver.knows(interface.ip)
