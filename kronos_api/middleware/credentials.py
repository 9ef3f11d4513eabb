"""Identifies callers by what a request sends: an API key, or a ServiceAccount token."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Final

import structlog
from starlette.datastructures import Headers
from starlette.types import Scope

from kronos_api.errors import CallerUnknown, InsufficientScope, KronosError
from kronos_api.security.api_keys import METRICS, PREDICT, ApiKeys
from kronos_api.security.callers import OTHER, Caller
from kronos_api.telemetry.metrics import metrics

if TYPE_CHECKING:
    from kronos_api.security.service_accounts import ServiceAccounts

_SHOWN: Final = 200
"""Characters of a path in a log line."""

log = structlog.stdlib.get_logger("kronos_api.security")


class Credentials:
    """The caller that `Authorization: Bearer` names, by API key or token; either can be off.

    `probes`: paths of health and metrics, for which an API key needs another scope.
    """

    def __init__(
        self,
        keys: ApiKeys | None = None,
        accounts: ServiceAccounts | None = None,
        *,
        probes: Collection[str] = (),
    ) -> None:
        self.keys = keys
        self.accounts = accounts
        self.probes = frozenset(probes)

    @property
    def accepted(self) -> bool:
        """Whether any credential is accepted."""
        return self.keys is not None or self.accounts is not None

    @property
    def missing(self) -> str:
        """Message of a 401 for an unlisted caller without a credential."""
        kinds = []
        if self.keys is not None:
            kinds.append("an API key of KRONOS_API_KEYS_FILE")
        if self.accounts is not None:
            kinds.append("a ServiceAccount token for KRONOS_SERVICE_ACCOUNT_AUDIENCE")
        return (
            "The request has no credential, and no entry of KRONOS_CONTAINER_WHITELIST names this"
            f" caller. Send Authorization: Bearer with {' or '.join(kinds)}."
        )

    async def caller(self, scope: Scope) -> Caller | None:
        """The caller that the request's credential names; None without one, or if all are off.

        Raises:
            KronosError: the credential is refused, or cannot be checked.
        """
        given = bearer(Headers(scope=scope)) if self.accepted else None
        if given is None:
            return None
        accounts = self._accounts_for(given)
        try:
            if accounts is not None:
                caller = await accounts.caller(given)
            else:
                assert self.keys is not None
                caller = await self.keys.caller(given, self._needed(scope))
        except KronosError as refusal:
            _record(refusal, scope, "api_key" if accounts is None else "service_account")
            raise
        metrics.security_events.labels("allowed", caller.label).inc()
        return caller

    def challenge(self, refusal: KronosError, scope: Scope) -> str:
        """The value of WWW-Authenticate, by RFC 6750."""
        if isinstance(refusal, InsufficientScope):
            return f'Bearer error="insufficient_scope", scope="{self._needed(scope)}"'
        known = bearer(Headers(scope=scope)) is not None
        return 'Bearer error="invalid_token"' if known else "Bearer"

    def _accounts_for(self, given: str) -> ServiceAccounts | None:
        """What checks `given` as a token; None if it is an API key, which has no dots."""
        if self.keys is None or given.count(".") == 2:
            return self.accounts
        return None

    def _needed(self, scope: Scope) -> str:
        """The scope that the path needs."""
        return METRICS if scope["path"] in self.probes else PREDICT


def bearer(headers: Headers) -> str | None:
    """The credential of an `Authorization: Bearer` header; None without one.

    Empty, and so not valid, if there are several.
    """
    given = [value.partition(" ") for value in headers.getlist("authorization")]
    found = [value.strip() for scheme, _, value in given if scheme.lower() == "bearer"]
    return None if not found else found[0] if len(found) == 1 else ""


def _record(refusal: KronosError, scope: Scope, kind: str) -> None:
    fields = asked(scope) | {"peer": scope["client"][0] if scope.get("client") else None}
    if isinstance(refusal, CallerUnknown):
        metrics.security_events.labels("unknown", OTHER).inc()
        log.error("caller_unknown", reason="signing_keys_unavailable", **fields)
    else:
        metrics.security_events.labels("refused", OTHER).inc()
        reason = refusal.code if kind == "api_key" else refusal.message
        log.warning(f"{kind}_refused", reason=reason, **fields)


def asked(scope: Scope) -> dict[str, str]:
    """Method and path of a request for a log line."""
    return {"method": scope["method"], "path": scope["path"][:_SHOWN]}
