"""Whether a peer is listed, asked before there is a request."""

from __future__ import annotations

from kronos_api.security.identity import Identity
from kronos_api.security.resolver import ResolverOut
from kronos_api.security.whitelist import parse_address


class Peers:
    """Looks a peer up among allowed callers (`allowed`; None: all are) and trusted `proxies`."""

    def __init__(self, allowed: Identity | None, proxies: Identity) -> None:
        self._allowed = allowed
        self._proxies = proxies

    async def is_listed(self, peer: str) -> bool:
        """Whether `peer` is listed; not if DNS cannot say so. Only names are asked for."""
        if self._allowed is None:
            return True
        address = parse_address(peer)
        if address is None:
            return False
        for identity in (self._allowed, self._proxies):
            try:
                if await identity.settle(address) is not None:
                    return True
            except ResolverOut:
                continue
        return False
