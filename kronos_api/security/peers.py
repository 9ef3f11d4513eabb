"""Whether a peer is listed, decided before it has sent a request."""

from __future__ import annotations

from kronos_api.security.identity import Identity
from kronos_api.security.resolver import ResolverUnavailable
from kronos_api.security.whitelist import parse_address


class Peers:
    """Looks a peer up in the allowed callers (None: every caller) and the trusted `proxies`."""

    def __init__(self, allowed: Identity | None, proxies: Identity) -> None:
        self._allowed = allowed
        self._proxies = proxies

    async def is_listed(self, peer: str) -> bool:
        """Whether `peer` is listed; False if only DNS could tell and it does not answer."""
        if self._allowed is None:
            return True
        address = parse_address(peer)
        if address is None:
            return False
        for identity in (self._allowed, self._proxies):
            try:
                if await identity.identify(address) is not None:
                    return True
            except ResolverUnavailable:
                continue
        return False
