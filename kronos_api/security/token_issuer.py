"""The issuer of ServiceAccount tokens: what its tokens name, and where its keys are."""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, urlsplit

from kronos_api.errors import StartupError

FETCH_SECONDS: Final = 2.0
"""Time for each of connecting, TLS and the response, however slowly it comes."""
LARGEST: Final = 2**18
"""Bytes of the key set at most."""
_LOCAL: Final = ("localhost", "127.0.0.1", "::1")


class KeySetUnavailable(Exception):
    """The keys of the issuer cannot be fetched or parsed."""


@dataclass(frozen=True, slots=True)
class TokenIssuer:
    """What tokens must name, and where their keys are.

    Attributes:
        audience: the audience that tokens are made for, this service.
        issuer: the issuer that they name.
        jwks: URL or file of the JSON Web Key Set.
        ca_file: certificates of the authorities of the URL; None: those of the system.
        token_file: bearer token for the URL, read again for each fetch; None: none is sent.
    """

    audience: str
    issuer: str
    jwks: str
    ca_file: Path | None = None
    token_file: Path | None = None

    def check(self) -> None:
        """Raise `StartupError` if a file that the settings name cannot be read."""
        names = {
            "KRONOS_SERVICE_ACCOUNT_CA_FILE": self.ca_file,
            "KRONOS_SERVICE_ACCOUNT_TOKEN_FILE": self.token_file,
            "KRONOS_SERVICE_ACCOUNT_JWKS": None if is_url(self.jwks) else Path(self.jwks),
        }
        for name, file in names.items():
            if file is not None and not (file.is_file() and os.access(file, os.R_OK)):
                raise StartupError(f"{name}: {file} is no file that can be read")
        if self.ca_file is not None:
            try:
                ssl.create_default_context(cafile=self.ca_file)
            except ssl.SSLError:
                name = "KRONOS_SERVICE_ACCOUNT_CA_FILE"
                raise StartupError(f"{name}: {self.ca_file} has no certificate in PEM") from None

    def fetch(self) -> bytes:
        """The key set; connecting, TLS and the response take `FETCH_SECONDS` each at most.

        No redirect is followed, so that the token goes to no other host.

        Raises:
            KeySetUnavailable: it cannot be read.
        """
        try:
            if not is_url(self.jwks):
                with Path(self.jwks).open("rb") as opened:
                    content = opened.read(LARGEST + 1)
            else:
                content = self._get(urlsplit(self.jwks))
        except (OSError, HTTPException) as error:
            raise KeySetUnavailable(f"{type(error).__name__}: {error}") from None
        except ValueError as error:  # its text can have the token
            raise KeySetUnavailable(type(error).__name__) from None
        if len(content) > LARGEST:
            raise KeySetUnavailable(f"more than {LARGEST} bytes")
        return content

    def _get(self, url: SplitResult) -> bytes:
        headers = {"Accept": "application/jwk-set+json, application/json"}
        if self.token_file is not None:
            headers["Authorization"] = f"Bearer {self.token_file.read_text('ascii').strip()}"
        connection = self._connection(url)
        connection.connect()
        began = time.monotonic()
        # A timeout of the socket alone would not end a response that comes byte by byte.
        watchdog = threading.Timer(FETCH_SECONDS, _shut_down, [connection.sock])
        watchdog.daemon = True
        watchdog.start()
        try:
            target = url._replace(scheme="", netloc="", fragment="").geturl() or "/"
            connection.request("GET", target, headers=headers)
            response = connection.getresponse()
            content = response.read(LARGEST + 1)
            if response.status != 200:
                raise HTTPException(f"status {response.status}")
            if time.monotonic() - began >= FETCH_SECONDS:
                raise TimeoutError(f"no complete response in {FETCH_SECONDS:g} s")
            return content
        finally:
            watchdog.cancel()
            watchdog.join()  # no thread outlives the check before the workers fork
            connection.close()

    def _connection(self, url: SplitResult) -> HTTPConnection:
        assert url.hostname is not None
        if url.scheme == "http":
            return HTTPConnection(url.hostname, url.port, timeout=FETCH_SECONDS)
        cafile = None if self.ca_file is None else str(self.ca_file)
        context = ssl.create_default_context(cafile=cafile)
        return HTTPSConnection(url.hostname, url.port, timeout=FETCH_SECONDS, context=context)


def is_url(text: str) -> bool:
    """Whether `text` is an URL, not the path of a file."""
    return "://" in text


def is_key_location(text: str) -> bool:
    """Whether keys can be fetched from `text`: HTTPS, HTTP on this machine, or a file."""
    if not is_url(text):
        return True
    try:
        url = urlsplit(text)
        _ = url.port
    except ValueError:
        return False
    secure = url.scheme == "https" or (url.scheme == "http" and url.hostname in _LOCAL)
    return secure and bool(url.hostname) and url.username is None


def _shut_down(connected: socket.socket) -> None:
    with suppress(OSError):
        socket.socket.shutdown(connected, socket.SHUT_RDWR)
