"""The allowed callers: addresses, CIDR blocks, `localhost`, names, ServiceAccounts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, Self

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

LOCALHOST: Final = "localhost"
SERVICE_ACCOUNT: Final = "serviceaccount:"
"""Prefix of an entry that names ServiceAccounts of Kubernetes."""
_LOCALHOST: Final = frozenset({IPv4Address("127.0.0.1"), IPv6Address("::1")})
_PRIVATE: Final = tuple(
    map(ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"))
)

_NAME = re.compile(r"(?=.*[A-Za-z])[A-Za-z0-9][A-Za-z0-9_.-]{0,199}")
_ACCOUNT = re.compile(
    SERVICE_ACCOUNT
    + r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?/(\*|[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?)"
)
_SERVER = re.compile(r"(?:\[(?P<bracketed>[^\]]+)\]|(?P<bare>[^:\[\]]+))(?::(?P<port>\d{1,5}))?")
DNS_PORT: Final = 53
_LABEL: Final = 63
"""Longest part of a name between dots, a limit of DNS."""


def parse_address(text: str | None) -> Address | None:
    """`text` as an address without zone and IPv4 mapping; None if it is not an address."""
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
            raise ValueError(
                f"entry {number} must be address, address:port or [address]:port, such as "
                "127.0.0.11:53"
            )
        servers.append((str(address), port))
    return tuple(servers)


def parse_private_blocks(text: str) -> tuple[Network, ...]:
    """The blocks of a comma-separated list; raises `ValueError` with a bad one's number.

    They are private, because the owner of a public address names it in DNS as it likes.
    """
    blocks = []
    for number, entry in enumerate(listed(text), start=1):
        try:
            block = ip_network(entry)
        except ValueError:
            block = None
        if block is None or not any(_is_within(block, one) for one in _PRIVATE):
            raise ValueError(
                f"entry {number} must be a CIDR block of private addresses without bits beyond its "
                "prefix, such as 10.244.0.0/16 or fd00:10:244::/56"
            )
        blocks.append(block)
    return tuple(blocks)


def is_localhost(address: Address) -> bool:
    """Whether `address` is 127.0.0.1 or ::1, from which programs of this host connect.

    Other loopback addresses are proxies': Istio's sidecar passes every caller on from 127.0.0.6.
    """
    return address in _LOCALHOST


@dataclass(frozen=True, slots=True)
class Whitelist:
    """Entries by kind. The text of an entry is also the metric label of its callers."""

    networks: tuple[tuple[str, Network], ...] = ()
    names: tuple[str, ...] = ()
    localhost: bool = False
    service_accounts: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """The entries of a comma-separated list; raises `ValueError` with a bad one's number."""
        entries = listed(text)
        networks: list[tuple[str, Network]] = []
        names: list[str] = []
        accounts: list[str] = []
        for number, entry in enumerate(entries, start=1):
            if entry == LOCALHOST:
                continue
            if entry.startswith(SERVICE_ACCOUNT):
                accounts.append(_account(entry, number))
                continue
            try:
                network = _network(entry)
            except ValueError as error:
                raise ValueError(f"entry {number} {error}") from None
            if network is None:
                names.append(entry)
            else:
                networks.append((entry, network))
        return cls(tuple(networks), tuple(names), LOCALHOST in entries, tuple(accounts))

    @property
    def entries(self) -> tuple[str, ...]:
        """The texts of all entries."""
        local = (LOCALHOST,) if self.localhost else ()
        networks = (entry for entry, _ in self.networks)
        return (*networks, *self.names, *local, *self.service_accounts)

    def __len__(self) -> int:
        return len(self.entries)

    def by_address(self, address: Address, *, local: bool = True) -> str | None:
        """The entry that covers `address` without DNS; None if there is none.

        `local`: this host saw the address itself. The loopback address that another host saw is
        that host's own, so `localhost` does not cover it.
        """
        for entry, network in self.networks:
            if address in network:
                return entry
        return LOCALHOST if local and self.localhost and is_localhost(address) else None

    def by_service_account(self, namespace: str, name: str) -> str | None:
        """The entry that names the ServiceAccount; None if there is none."""
        of_namespace = SERVICE_ACCOUNT + namespace
        found = (f"{of_namespace}/{name}", f"{of_namespace}/*")
        return next((entry for entry in found if entry in self.service_accounts), None)


def _account(entry: str, number: int) -> str:
    """`entry` as it is; raises `ValueError` if it names no ServiceAccount."""
    if not _ACCOUNT.fullmatch(entry):
        raise ValueError(
            f"entry {number} must be {SERVICE_ACCOUNT}NAMESPACE/NAME, such as "
            f"{SERVICE_ACCOUNT}shop/web, or {SERVICE_ACCOUNT}NAMESPACE/* for all of a namespace"
        )
    return entry


def _network(entry: str) -> Network | None:
    """The addresses that `entry` covers; None if it is a name; raises `ValueError`."""
    if "/" in entry:
        try:
            return _unmapped(ip_network(entry))
        except ValueError:
            raise ValueError(
                "must be a CIDR block without bits beyond its prefix, such as 10.0.0.0/8"
            ) from None
    address = parse_address(entry)
    if address is not None:
        return ip_network(address)
    parts = entry.split(".")
    if not _NAME.fullmatch(entry) or not all(0 < len(part) <= _LABEL for part in parts):
        raise ValueError(
            "must be an address, a CIDR block or the name of a container or service, such as "
            "10.0.0.7, 10.0.0.0/8 or shop"
        )
    return None


def _is_within(block: Network, other: Network) -> bool:
    if isinstance(block, IPv4Network):
        return isinstance(other, IPv4Network) and block.subnet_of(other)
    return isinstance(other, IPv6Network) and block.subnet_of(other)


def _unmapped(network: Network) -> Network:
    """`network` without IPv4 mapping, as peers are compared."""
    if isinstance(network, IPv6Network) and network.prefixlen >= 96:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return IPv4Network((mapped, network.prefixlen - 96))
    return network
