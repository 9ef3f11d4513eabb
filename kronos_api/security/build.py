"""Builds what identifies callers: the allowed ones, trusted proxies, API keys, tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from kronos_api.errors import StartupError
from kronos_api.security.api_keys import ApiKeys
from kronos_api.security.identity import Identity
from kronos_api.security.local_networks import LocalNetworks
from kronos_api.security.peers import Peers
from kronos_api.security.resolver import Observe, Resolver, unobserved
from kronos_api.security.token_issuer import TokenIssuer
from kronos_api.security.whitelist import Network, Whitelist

if TYPE_CHECKING:
    from kronos_api.security.service_accounts import ServiceAccounts


@dataclass(frozen=True, slots=True)
class Callers:
    """What identifies callers.

    `allowed`: None if every caller passes; `keys` and `accounts`: None if off.
    """

    allowed: Identity | None
    proxies: Identity
    keys: ApiKeys | None
    accounts: ServiceAccounts | None

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
    issuer: TokenIssuer | None = None,
    observe_keys: Callable[[Literal["fetched", "failed"]], None] = lambda _: None,
) -> Callers:
    """The callers that are `allowed` (None: all), the trusted `proxies`, and the file of `keys`.

    A resolver is made only if an entry is a name. It asks `servers`, or those of the system, and
    waits `timeout` seconds. `networks`: names of this container's networks; empty: learned from
    DNS. `blocks`: addresses beyond its own subnets that DNS can name. `observe` is called with the
    result and the seconds of each question.

    `issuer`: issuer of ServiceAccount tokens; None: off. `observe_keys` is called with the result
    of each fetch of its keys.

    Raises:
        StartupError: a resolver is needed, and no nameserver is configured; or a file of keys
            cannot be read; or the extra `kubernetes` is needed and not installed.
    """
    local_networks = None
    if proxies.names or (allowed is not None and allowed.names):
        resolver = Resolver(servers, timeout=timeout, observe=observe)
        local_networks = LocalNetworks(resolver, networks=networks, blocks=blocks)
    allowing = None if allowed is None else Identity(allowed, local_networks)
    listed = None if keys is None else ApiKeys(keys)
    accounts = None if issuer is None else _service_accounts(allowed, issuer, observe_keys)
    return Callers(allowing, Identity(proxies, local_networks), listed, accounts)


def _service_accounts(
    allowed: Whitelist | None,
    issuer: TokenIssuer,
    observe: Callable[[Literal["fetched", "failed"]], None],
) -> ServiceAccounts:
    try:
        from kronos_api.security.service_accounts import ServiceAccounts
        from kronos_api.security.signing_keys import SigningKeys
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in ("jwt", "cryptography"):
            raise
        raise StartupError(
            "KRONOS_SERVICE_ACCOUNT_AUDIENCE is set, but the package pyjwt is not installed with"
            " cryptography: pip install 'kronos-api[kubernetes]'"
        ) from None
    issuer.check()
    keys = SigningKeys(issuer.fetch, observe=observe)
    return ServiceAccounts(allowed, keys, audience=issuer.audience, issuer=issuer.issuer)
