"""Who may call: addresses, CIDR blocks, `localhost`, and names of containers and services."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, Self

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

LOCALHOST: Final = "localhost"

_NAME = re.compile(r"(?=.*[A-Za-z])[A-Za-z0-9][A-Za-z0-9_.-]{0,199}")
_SERVER = re.compile(r"(?:\[(?P<bracketed>[^\]]+)\]|(?P<bare>[^:\[\]]+))(?::(?P<port>\d{1,5}))?")
DNS_PORT: Final = 53
_LABEL: Final = 63
"""Longest part of a name between dots, which DNS sets."""


def parse_address(text: str | None) -> Address | None:
    """The address that `text` is, without zone and IPv4 mapping; None if it is none."""
    try:
        address = ip_address((text or "").partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def listed(text: str) -> tuple[str, ...]:
    """The parts of a comma-separated list, each once."""
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def parse_servers(text: str) -> tuple[tuple[str, int], ...]:
    """Address and port of each nameserver in a comma-separated list; raises `ValueError`."""
    servers = []
    for number, part in enumerate(listed(text), start=1):
        match = _SERVER.fullmatch(part)
        host = match and (match["bracketed"] or match["bare"])
        port = int((match and match["port"]) or DNS_PORT)
        if parse_address(host) is None and parse_address(part) is not None:
            host, port = part, DNS_PORT  # IPv6 without a port
        address = parse_address(host)
        if address is None or not 0 < port < 65536:
            raise ValueError(f"entry {number} is no address, address:port or [address]:port")
        servers.append((str(address), port))
    return tuple(servers)


@dataclass(frozen=True, slots=True)
class Whitelist:
    """Entries by kind. An entry, as it was written, is also the label of the callers it names."""

    networks: tuple[tuple[str, Network], ...] = ()
    names: tuple[str, ...] = ()
    localhost: bool = False

    @classmethod
    def parse(cls, text: str) -> Self:
        """The entries of a comma-separated list; raises `ValueError` that counts to the bad one."""
        entries = listed(text)
        networks: list[tuple[str, Network]] = []
        names: list[str] = []
        for number, entry in enumerate(entries, start=1):
            if entry == LOCALHOST:
                continue
            try:
                network = _network(entry)
            except ValueError as error:
                raise ValueError(f"entry {number} {error}") from None
            if network is None:
                names.append(entry)
            else:
                networks.append((entry, network))
        return cls(tuple(networks), tuple(names), LOCALHOST in entries)

    def __len__(self) -> int:
        return len(self.networks) + len(self.names) + self.localhost

    def by_address(self, address: Address, *, here: bool = True) -> str | None:
        """The entry that names `address` without a look at its name; None if there is none.

        `here`: the address is one that this host saw itself. Loopback seen by another host is
        that host's own, so `localhost` does not name it.
        """
        for entry, network in self.networks:
            if address in network:
                return entry
        return LOCALHOST if here and self.localhost and address.is_loopback else None


def _network(entry: str) -> Network | None:
    """The addresses that `entry` stands for; None if it is a name; raises `ValueError`."""
    if "/" in entry:
        try:
            return _unmapped(ip_network(entry))
        except ValueError:
            raise ValueError("is no CIDR block, or has bits set beyond its prefix") from None
    address = parse_address(entry)
    if address is not None:
        return ip_network(address)
    parts = entry.split(".")
    if not _NAME.fullmatch(entry) or not all(0 < len(part) <= _LABEL for part in parts):
        raise ValueError("is no address, CIDR block or name of a container or service")
    return None


def _unmapped(network: Network) -> Network:
    """Peers are compared without IPv4 mapping, so blocks are as well."""
    if isinstance(network, IPv6Network) and network.prefixlen >= 96:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return IPv4Network((mapped, network.prefixlen - 96))
    return network
