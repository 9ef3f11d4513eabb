"""The networks of this host: their subnets, and their names in DNS."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from typing import Final

import psutil

from kronos_api.security.resolver import FRESH_SECONDS, Resolver
from kronos_api.security.whitelist import Address, Network

Interface = IPv4Interface | IPv6Interface

REFRESH_SECONDS: Final = 2.0
_FAMILIES: Final = (socket.AF_INET, socket.AF_INET6)


def own_interfaces() -> tuple[Interface, ...]:
    """This host's addresses with their subnets, without loopback."""
    found = []
    for addresses in psutil.net_if_addrs().values():
        for one in addresses:
            if one.family in _FAMILIES and one.netmask:
                interface = _interface(one.address.partition("%")[0], one.netmask)
                if not interface.is_loopback:
                    found.append(interface)
    return tuple(found)


def _interface(address: str, netmask: str) -> Interface:
    if ":" in netmask:  # the standard library does not parse IPv6 masks
        prefix = bin(int.from_bytes(socket.inet_pton(socket.AF_INET6, netmask))).count("1")
        return ip_interface(f"{address}/{prefix}")
    return ip_interface(f"{address}/{netmask}")


class LocalNetworks:
    """The subnets and network names of this host.

    `networks`: the names of its networks. Without them, they are learned from the PTR records of
    its own addresses: each is `<container>.<network>`, so every suffix after a dot can be the name
    of a network. A host without PTR records has no networks.

    `blocks`: further addresses that DNS can name, such as those of pods, which are in no subnet of
    this host.
    """

    def __init__(
        self,
        resolver: Resolver,
        *,
        networks: tuple[str, ...] = (),
        blocks: tuple[Network, ...] = (),
        interfaces: Callable[[], tuple[Interface, ...]] = own_interfaces,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._given = networks
        self._blocks = blocks
        self._read = interfaces
        self._now = now
        self._interfaces: tuple[Interface, ...] = ()
        self._read_at = -REFRESH_SECONDS
        self.resolver = resolver

    def interfaces(self) -> tuple[Interface, ...]:
        """This host's addresses, read again after `REFRESH_SECONDS`: networks can change."""
        now = self._now()
        if now - self._read_at >= REFRESH_SECONDS:
            self._interfaces, self._read_at = self._read(), now
        return self._interfaces

    def interface_for(self, address: Address) -> Interface | None:
        """This host's interface in the subnet of `address`; None if DNS cannot name it.

        For an address in one of the further blocks, the first interface of its IP version.
        """
        of_version = [one for one in self.interfaces() if one.version == address.version]
        own = next((one for one in of_version if address in one.network), None)
        if own is None and any(address in block for block in self._blocks):
            return next(iter(of_version), None)
        return own

    async def networks(
        self, interface: Interface, *, failures: float = FRESH_SECONDS
    ) -> tuple[str, ...]:
        """Possible names of the network of `interface`.

        Raises:
            ResolverUnavailable: DNS does not answer; the failure is reused for `failures` seconds.
        """
        if self._given:
            return self._given
        own = await self.resolver.names(interface.ip, failures=failures)
        found = []
        for name in sorted(own):
            parts = name.split(".")
            found += [".".join(parts[cut:]) for cut in range(1, len(parts))]
        return tuple(found)
