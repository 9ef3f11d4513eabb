"""The parts of caller identity, put together."""

from __future__ import annotations

from kronos_api.security.identity import Identity
from kronos_api.security.local_networks import LocalNetworks
from kronos_api.security.resolver import Resolver
from kronos_api.security.whitelist import Whitelist


def build_identities(
    allowed: Whitelist | None,
    proxies: Whitelist,
    *,
    servers: tuple[tuple[str, int], ...],
    timeout: float,
    networks: tuple[str, ...],
) -> tuple[Identity | None, Identity]:
    """Who may call (None: everyone) and whose word on callers is taken; raises `StartupError`.

    DNS is set up only if an entry needs it: `servers`, or those of the system, have `timeout`
    seconds to answer, and the container is on `networks`, or on those its own names tell.
    """
    surroundings = None
    if proxies.names or (allowed is not None and allowed.names):
        surroundings = LocalNetworks(Resolver(servers, timeout=timeout), networks=networks)
    allowing = None if allowed is None else Identity(allowed, surroundings)
    return allowing, Identity(proxies, surroundings)
