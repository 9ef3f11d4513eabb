"""The public keys of an issuer of tokens, kept and replaced while the service runs.

Needs the extra `kubernetes`.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Literal

import structlog
from cryptography.exceptions import UnsupportedAlgorithm
from jwt import PyJWK, PyJWTError

from kronos_api.security.token_issuer import KeySetUnavailable

ALGORITHMS: Final = ("RS256", "ES256")
REFRESH_SECONDS: Final = 300.0
"""Age at which the keys are fetched again. At twice this age, requests wait for the fetch."""
HOLD_SECONDS: Final = 5.0
"""Age at which a token with an unknown key has the keys fetched again."""
RETRY_SECONDS: Final = 1.0
"""Time between a failed fetch and the next one."""
PATIENCE: Final = 0.25
"""Seconds that a request waits for a fetch, if its key is unknown or old."""
MOST_KEYS: Final = 100
"""Keys of the set that are read at most."""
_PUBLIC: Final = ("kty", "alg", "n", "e", "crv", "x", "y")
"""Members of a public key, RSA or elliptic curve."""

Result = Literal["fetched", "failed"]
Observe = Callable[[Result], None]

log = structlog.stdlib.get_logger("kronos_api.security")


class SigningKeys:
    """The keys that `fetch` returns as a JSON Web Key Set, by their `kid`.

    They are fetched once at the start, and then in a thread, never by a request: when they are
    `REFRESH_SECONDS` old, and when a token names an unknown key, at most every `HOLD_SECONDS`.
    While they cannot be fetched, the keys of the last fetch hold. `observe` is called with the
    result of each fetch.
    """

    def __init__(
        self,
        fetch: Callable[[], bytes],
        *,
        observe: Observe,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fetch = fetch
        self._observe = observe
        self._now = now
        self._keys: dict[str, PyJWK] = {}
        self._failed = False
        self._fetched = now()
        self._fetching: asyncio.Future[None] | None = None
        self._refresh()

    async def key(self, kid: str) -> PyJWK | None:
        """The key named `kid`; None if the issuer has none.

        Raises:
            KeySetUnavailable: it is not among the known keys, and the keys cannot be fetched.
        """
        known = self._keys.get(kid)
        age = self._now() - self._fetched
        patience = REFRESH_SECONDS if known is not None else HOLD_SECONDS
        if age >= (RETRY_SECONDS if self._failed else patience) and not self._in_progress:
            self._fetching = asyncio.ensure_future(asyncio.to_thread(self._refresh))
        # Keys that no request has asked for in a while are replaced before one is used.
        if known is not None and age < 2 * REFRESH_SECONDS:
            return known
        if self._fetching is not None and self._in_progress:
            with suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    await asyncio.shield(self._fetching)
        if kid not in self._keys and (self._failed or self._in_progress):
            raise KeySetUnavailable
        return self._keys.get(kid)

    @property
    def _in_progress(self) -> bool:
        return self._fetching is not None and not self._fetching.done()

    def _refresh(self) -> None:
        """Fetch the keys; called in a thread."""
        try:
            keys = parse_key_set(self._fetch())
        except KeySetUnavailable as error:
            self._failed = True
            log.error("signing_keys_unavailable", reason=str(error), keys=len(self._keys))
        else:
            if keys.keys() != self._keys.keys():
                log.info("signing_keys_fetched", keys=len(keys))
            self._keys, self._failed = keys, False
        self._fetched = self._now()
        self._observe("failed" if self._failed else "fetched")


def parse_key_set(content: bytes) -> dict[str, PyJWK]:
    """The keys for `ALGORITHMS` in a JSON Web Key Set (RFC 7517), by their `kid`.

    Others are left out, and so is a private part.

    Raises:
        KeySetUnavailable: it is not a key set, or has no such key.
    """
    try:
        listed = json.loads(content)["keys"][:MOST_KEYS]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise KeySetUnavailable("the response is no JSON Web Key Set") from None
    found = {}
    for one in listed:
        if not isinstance(one, dict) or one.get("use", "sig") != "sig":
            continue
        public = {name: one[name] for name in _PUBLIC if name in one}
        try:
            key = PyJWK(public)
        except (PyJWTError, UnsupportedAlgorithm, KeyError, TypeError, ValueError):
            continue
        if key.algorithm_name in ALGORITHMS and isinstance(one.get("kid"), str):
            found[one["kid"]] = key
    if not found:
        raise KeySetUnavailable(f"the key set has no key for {' or '.join(ALGORITHMS)}")
    return found
