"""Builds what identifies callers: the allowed ones, trusted proxies, API keys."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kronos_api.security.api_keys import ApiKeys
from kronos_api.security.identity import Identity
from kronos_api.security.local_networks import LocalNetworks
from kronos_api.security.peers import Peers
from kronos_api.security.resolver import Observe, Resolver, unobserved
from kronos_api.security.whitelist import Network, Whitelist


@dataclass(frozen=True, slots=True)
class Callers:
    """What identifies callers. `allowed`: None if every caller passes; `keys`: None if off."""

    allowed: Identity | None
    proxies: Identity
    keys: ApiKeys | None

    @property
    def peers(self) -> Peers:
        """Lookup of peers that have sent no request yet."""
        return Peers(self.allowed, self.proxies)

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels of callers in metrics: entries of the whitelist, names of keys."""
        entries = () if self.allowed is None else self.allowed.whitelist.entries
        return (*entries, *(() if self.keys is None else self.keys.names))


def build_callers(
    allowed: Whitelist | None,
    proxies: Whitelist,
    *,
    keys: Path | None,
    servers: tuple[tuple[str, int], ...],
    timeout: float,
    networks: tuple[str, ...],
    blocks: tuple[Network, ...] = (),
    observe: Observe = unobserved,
) -> Callers:
    """The callers that are `allowed` (None: all), the trusted `proxies`, and the file of `keys`.

    A resolver is made only if an entry is a name. It asks `servers`, or those of the system, and
    waits `timeout` seconds. `networks`: names of this container's networks; empty: learned from
    DNS. `blocks`: addresses beyond its own subnets that DNS can name. `observe` is called with the
    result and the seconds of each question.

    Raises:
        StartupError: a resolver is needed, and no nameserver is configured; or the file of keys
            cannot be read.
    """
    local_networks = None
    if proxies.names or (allowed is not None and allowed.names):
        resolver = Resolver(servers, timeout=timeout, observe=observe)
        local_networks = LocalNetworks(resolver, networks=networks, blocks=blocks)
    allowing = None if allowed is None else Identity(allowed, local_networks)
    listed = None if keys is None else ApiKeys(keys)
    return Callers(allowing, Identity(proxies, local_networks), listed)
