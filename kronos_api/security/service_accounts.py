"""Callers that a ServiceAccount token of Kubernetes names. Needs the extra `kubernetes`."""

from __future__ import annotations

import re
from typing import Any, Final

import jwt

from kronos_api.errors import CallerUnknown, ContainerNotAllowed, Unauthenticated
from kronos_api.security.callers import OTHER, Caller
from kronos_api.security.signing_keys import ALGORITHMS, SigningKeys
from kronos_api.security.token_issuer import KeySetUnavailable
from kronos_api.security.whitelist import SERVICE_ACCOUNT, Whitelist

LEEWAY: Final = 5
"""Seconds that the clocks of issuer and service can differ."""
LONGEST: Final = 8192
"""Characters of a token that is parsed; one of Kubernetes has about 1,000."""
REQUIRED: Final = ("exp", "aud", "iss", "sub")
UNAVAILABLE: Final = (
    "The ServiceAccount token cannot be checked, because the issuer's keys cannot be fetched from "
    "KRONOS_SERVICE_ACCOUNT_JWKS. Retry in 1 s; the service's log line `signing_keys_unavailable` "
    "has the reason."
)
"""Message of a 503."""
_SUBJECT: Final = re.compile(r"system:serviceaccount:([a-z0-9-]{1,63}):([a-z0-9.-]{1,253})")


class ServiceAccounts:
    """Finds the entry of `whitelist` for a token (None: every ServiceAccount passes).

    A token must be signed by one of `keys`, be made by `issuer` for `audience`, and not have
    expired. Two pods with one ServiceAccount are one caller.
    """

    def __init__(
        self, whitelist: Whitelist | None, keys: SigningKeys, *, audience: str, issuer: str
    ) -> None:
        self.whitelist = whitelist
        self.keys = keys
        self.audience = audience
        self.issuer = issuer

    async def caller(self, token: str) -> Caller:
        """The caller that `token` names.

        Raises:
            Unauthenticated: the token is not valid.
            ContainerNotAllowed: no entry of the whitelist names its ServiceAccount.
            CallerUnknown: its key is unknown, and the issuer's keys cannot be fetched.
        """
        claims = await self._claims(token)
        subject = _SUBJECT.fullmatch(claims["sub"])
        if subject is None:
            raise _invalid("its subject is no ServiceAccount")
        namespace, name = subject.groups()
        label: str | None = OTHER
        if self.whitelist is not None:
            label = self.whitelist.by_service_account(namespace, name)
        account = f"{SERVICE_ACCOUNT}{namespace}/{name}"
        if label is None:
            raise ContainerNotAllowed(
                f"No entry of KRONOS_CONTAINER_WHITELIST names the ServiceAccount of the token. Add"
                f" {account} or {SERVICE_ACCOUNT}{namespace}/* there."
            )
        return Caller(label, account, account)

    async def _claims(self, token: str) -> dict[str, Any]:
        try:
            if len(token) > LONGEST:
                raise jwt.DecodeError
            header = jwt.get_unverified_header(token)
            if header.get("alg") not in ALGORITHMS:
                raise _invalid(f"its algorithm is not {' or '.join(ALGORITHMS)}")
            key = await self.keys.key(str(header.get("kid", "")))
            if key is None:
                raise _invalid("the issuer has no key of its kid")
            return self._verified(token, key)
        except KeySetUnavailable:
            raise CallerUnknown(UNAVAILABLE, retry_after=1) from None
        except (jwt.PyJWTError, RecursionError) as error:
            raise _invalid(_reason(error)) from None

    def _verified(self, token: str, key: jwt.PyJWK) -> dict[str, Any]:
        return jwt.decode(
            token,
            key,
            algorithms=ALGORITHMS,
            audience=self.audience,
            issuer=self.issuer,
            leeway=LEEWAY,
            options={"require": list(REQUIRED), "enforce_minimum_key_length": True},
        )


def _reason(error: Exception) -> str:
    """Why a token is not valid, without its content."""
    reasons: dict[type[Exception], str] = {
        jwt.ExpiredSignatureError: "it has expired",
        jwt.ImmatureSignatureError: "it is not valid yet",
        jwt.InvalidAudienceError: "its audience is not KRONOS_SERVICE_ACCOUNT_AUDIENCE",
        jwt.InvalidIssuerError: "its issuer is not KRONOS_SERVICE_ACCOUNT_ISSUER",
        jwt.MissingRequiredClaimError: f"it lacks one of {', '.join(REQUIRED)}",
        jwt.InvalidSignatureError: "its signature does not match",
    }
    return reasons.get(type(error), "it is malformed")


def _invalid(reason: str) -> Unauthenticated:
    return Unauthenticated(
        f"The ServiceAccount token is not valid: {reason}. Mount a token for the audience of the"
        " service, and read it again from its file for each request."
    )
