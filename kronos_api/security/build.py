"""Builds the identities of allowed callers and of trusted proxies."""

from __future__ import annotations

from kronos_api.security.identity import Identity
from kronos_api.security.local_networks import LocalNetworks
from kronos_api.security.resolver import Observe, Resolver, unobserved
from kronos_api.security.whitelist import Whitelist


def build_identities(
    allowed: Whitelist | None,
    proxies: Whitelist,
    *,
    servers: tuple[tuple[str, int], ...],
    timeout: float,
    networks: tuple[str, ...],
    observe: Observe = unobserved,
) -> tuple[Identity | None, Identity]:
    """The allowed callers (None: every caller) and the trusted proxies.

    A resolver is made only if an entry is a name. It asks `servers`, or those of the system, and
    waits `timeout` seconds. `networks`: names of this container's networks; empty: learned from
    DNS. `observe` is called with the result and the seconds of each question.

    Raises:
        StartupError: a resolver is needed, and no nameserver is configured.
    """
    local_networks = None
    if proxies.names or (allowed is not None and allowed.names):
        resolver = Resolver(servers, timeout=timeout, observe=observe)
        local_networks = LocalNetworks(resolver, networks=networks)
    allowing = None if allowed is None else Identity(allowed, local_networks)
    return allowing, Identity(proxies, local_networks)
