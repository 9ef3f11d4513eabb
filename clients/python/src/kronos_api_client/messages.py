"""What `exchange` and the clients that run it say to each other."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import httpx

LONGEST_KEY: Final = 128
"""Characters of an Idempotency-Key that the service accepts."""


@dataclass(frozen=True, slots=True)
class Item:
    """One series of a request: its id as the caller knows it, and its JSON."""

    series_id: object
    content: bytes


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """One HTTP request. `first` is the number of its first item among those of the whole call."""

    method: str
    path: str
    items: tuple[Item, ...] = ()
    batch: bool = False
    first: int = 0
    key: str | None = None
    """Idempotency key of the whole call."""
    accepted: tuple[int, ...] = (200,)
    """Statuses that are no error."""
    stream: bool = False
    """Whether the response is read event by event: the answer's content is the open response."""

    @property
    def content(self) -> bytes | None:
        """The body; None for GET."""
        if not self.items:
            return None
        joined = b",".join(item.content for item in self.items)
        return b'{"items":[' + joined + b"]}" if self.batch else joined

    @property
    def headers(self) -> dict[str, str]:
        """Those of the body; each part of a call has an Idempotency-Key of its own."""
        headers = {"Content-Type": "application/json"} if self.items else {}
        if self.key is not None:
            part = f".{self.first}-{self.first + len(self.items)}" if self.batch else ""
            whole = self.key + part
            if len(whole) > LONGEST_KEY:
                whole = hashlib.sha256(self.key.encode()).hexdigest() + part
            headers["Idempotency-Key"] = whole
        return headers

    def split(self, most: int) -> list[Request]:
        """Requests for the same items, in order, of at most `most` items each."""
        return [
            replace(self, items=self.items[start : start + most], first=self.first + start)
            for start in range(0, max(1, len(self.items)), most)
        ]


@dataclass(frozen=True, slots=True)
class Start:
    """Send `request` and do not wait for its response."""

    request: Request


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait until a response comes, at most `seconds`; None: without a limit."""

    seconds: float | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of one request: a response, or the failure of its connection."""

    request: Request
    result: httpx.Response | httpx.RequestError


@dataclass(frozen=True, slots=True)
class Answer:
    """What the service answered for one series, or to one GET."""

    content: Any
    request_id: str | None


Exchange = Generator[Start | Wait, Sequence[Outcome], list[Answer]]
