"""API keys: the file that lists them, and the caller that a request's key names.

The file holds no key, only SHA-256 digests. A key has 256 random bits, which no attacker can try
out, so a slow hash would only cost each request time.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from kronos_api.errors import InsufficientScope, StartupError, Unauthenticated
from kronos_api.security.callers import Caller

PREDICT: Final = "predict"
METRICS: Final = "metrics"
SCOPES: Final = (PREDICT, METRICS)
"""`metrics` covers health and metrics, `predict` every other path."""
SETTING: Final = "KRONOS_API_KEYS_FILE"
REREAD_SECONDS: Final = 1.0
"""Age at which the file is compared again."""
PATIENCE: Final = 0.25
"""Seconds that a request waits for the file; then the keys of the last reading hold."""
MOST_KEYS: Final = 1000
"""Lines of the file at most: names are labels of metrics."""
LARGEST: Final = 2**18
"""Bytes of the file at most."""

_PREFIX: Final = "kronos_"
_SECRET_BYTES: Final = 32
_LONGEST: Final = 200
"""Characters of a key that is looked up."""
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_DIGEST: Final = re.compile(r"sha256:([0-9a-f]{64})")
_FORM: Final = f"NAME SCOPES sha256:DIGEST, with scopes of {', '.join(SCOPES)}"
_EXAMPLE: Final = "`kronos-api key new shop` prints such a line"

log = structlog.stdlib.get_logger("kronos_api.security")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A line of the file; `digest` is the SHA-256 digest of the key in hexadecimal."""

    name: str
    scopes: frozenset[str]
    digest: str

    def line(self) -> str:
        """The line of the file."""
        return f"{self.name} {','.join(sorted(self.scopes))} sha256:{self.digest}"

    @property
    def caller(self) -> Caller:
        """The caller that the key names; no container or address has its identity."""
        return Caller(self.name, f"key:{self.name}")


def new_key(name: str, scopes: Sequence[str]) -> tuple[str, ApiKey]:
    """A new key and its line; raises `StartupError` for a name or scopes that the file rejects."""
    key = _PREFIX + secrets.token_urlsafe(_SECRET_BYTES)
    made = ApiKey(name, frozenset(scopes), _digest(key))
    if _parse_line(made.line()) is None:
        raise StartupError(
            f"{name!a} with scopes {', '.join(scopes)}: a name has up to 63 letters, digits, dots,"
            f" hyphens and underscores, such as shop-1; scopes are {', '.join(SCOPES)}"
        )
    return key, made


def parse_keys(text: str) -> tuple[ApiKey, ...]:
    """The keys in the text of a file; raises `StartupError` with the number of a bad line.

    Its content is not repeated: it can be a key that was pasted by mistake.
    """
    keys = []
    for number, line in enumerate(text.splitlines(), start=1):
        content = line.partition("#")[0].strip()
        if not content:
            continue
        key = _parse_line(content)
        if key is None:
            raise StartupError(f"{SETTING}: line {number} must be {_FORM}; {_EXAMPLE}")
        keys.append(key)
    if len(keys) > MOST_KEYS:
        raise StartupError(f"{SETTING}: {len(keys)} keys, of which at most {MOST_KEYS} are read")
    return tuple(keys)


class ApiKeys:
    """The keys of `file`, which is read again when it has changed.

    A new key is accepted and a removed one refused `REREAD_SECONDS` later at the latest. If the
    file cannot be read or parsed any more, the keys of the last reading hold, and an error is
    logged at each attempt.

    Raises:
        StartupError: the file cannot be read or parsed at the start.
    """

    def __init__(self, file: Path, *, now: Callable[[], float] = time.monotonic) -> None:
        self.file = file
        self._now = now
        self._version = self._stat()
        self._keys = parse_keys(self._text())
        self._checked = now()
        self._rereading: asyncio.Future[None] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the keys that were last read, each once."""
        return tuple(dict.fromkeys(key.name for key in self._keys))

    async def caller(self, key: str, scope: str) -> Caller:
        """The caller that `key` names.

        Raises:
            Unauthenticated: the key is not in the file.
            InsufficientScope: its line lacks `scope`.
        """
        found = _find(await self._current(), key)
        if found is None:
            raise Unauthenticated(
                f"The API key is not valid: {SETTING} has no line for it. Create one with"
                " `kronos-api key new`."
            )
        if scope not in found.scopes:
            raise InsufficientScope(
                f"The API key {found.name!a} has the scopes {', '.join(sorted(found.scopes))}; this"
                f" path needs {scope}. Add it to the key's line in {SETTING}."
            )
        return found.caller

    async def _current(self) -> tuple[ApiKey, ...]:
        if self._now() - self._checked >= REREAD_SECONDS:
            if self._rereading is None or self._rereading.done():
                self._rereading = asyncio.ensure_future(asyncio.to_thread(self._reread))
            with suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    await asyncio.shield(self._rereading)
        return self._keys

    def _reread(self) -> None:
        """Read the file if it has changed; it is another one after a rename."""
        try:
            version = self._stat()
            if version != self._version:
                self._keys = parse_keys(self._text())
                self._version = version
                log.info("api_keys_read", keys=len(self._keys))
        except StartupError as error:
            log.error("api_keys_unreadable", reason=str(error), keys=len(self._keys))
        self._checked = self._now()

    def _stat(self) -> tuple[int, int, int]:
        try:
            found = self.file.stat()
        except OSError as error:
            raise self._unreadable(error) from None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def _text(self) -> str:
        try:
            with self.file.open("rb") as opened:
                content = opened.read(LARGEST + 1)
            if len(content) > LARGEST:
                raise StartupError(f"{SETTING}: {self.file} has more than {LARGEST} bytes")
            return content.decode()
        except (OSError, UnicodeDecodeError) as error:
            raise self._unreadable(error) from None

    def _unreadable(self, error: OSError | UnicodeDecodeError) -> StartupError:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        return StartupError(f"{SETTING}: {self.file} cannot be read: {reason}")


def _find(keys: Sequence[ApiKey], key: str) -> ApiKey | None:
    """The line of `key`; takes the same time whichever it is."""
    digest = _digest(key) if len(key) <= _LONGEST else ""
    found = None
    for one in keys:
        if hmac.compare_digest(one.digest, digest):
            found = one
    return found


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def _parse_line(line: str) -> ApiKey | None:
    parts = line.split()
    if len(parts) != 3:
        return None
    name, scopes, digest = parts[0], frozenset(parts[1].split(",")), _DIGEST.fullmatch(parts[2])
    if not _NAME.fullmatch(name) or not scopes <= set(SCOPES) or digest is None:
        return None
    return ApiKey(name, scopes, digest[1])
