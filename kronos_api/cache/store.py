"""The interface of the stores of responses."""

from __future__ import annotations

from typing import Literal, Protocol


class CacheUnavailable(Exception):
    """The store cannot be reached, or did not answer in time."""


class Store(Protocol):
    """Values by key, each for so many seconds; any value may be dropped before.

    All methods raise `CacheUnavailable`.
    """

    kind: Literal["memory", "redis"]

    async def get(self, key: str) -> bytes | None:
        """The value of `key`; None if there is none."""
        ...

    async def put(self, key: str, value: bytes, seconds: float) -> bool:
        """Set `key`; False: the value is too large for the store, and `key` is as before."""
        ...

    async def add(self, key: str, value: bytes, seconds: float) -> bytes | None:
        """Set `key` unless it has a value, which is returned."""
        ...

    async def delete(self, key: str, value: bytes) -> None:
        """Drop `key` if it has this value."""

    async def close(self) -> None:
        """After the last call."""
