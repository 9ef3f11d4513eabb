"""Callers, and how the peer of a connection was identified as one."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Final

OTHER: Final = "other"
"""Metric label of callers that are not listed."""


@dataclass(frozen=True, slots=True)
class Caller:
    """A caller that an entry of the whitelist covers or names.

    `label`: the entry, or `other`: one of few values, fit for metrics. `key`: identity of the
    caller for the rate limit: the name of its container if DNS knows it, else its address.
    """

    label: str
    key: str
    container: str | None = None

    @property
    def name(self) -> str:
        """Name for log lines."""
        return self.container or self.label

    @property
    def names(self) -> frozenset[str]:
        """All names and the address by which an operator can mean this caller."""
        return frozenset({self.label, self.key, self.name}) - {OTHER}


@dataclass(slots=True, eq=False)
class Identification:
    """The caller that the peer of a connection was identified as.

    `confirmed`: whether DNS has named it by an answer that is younger than the connection.
    """

    caller: Caller
    confirmed: bool = False


@dataclass(slots=True, eq=False)
class Connection:
    """Identity of the peer of one TCP connection, opened at `opened` by the monotonic clock.

    `is_proxy`: whether the peer was a trusted proxy at its first request, None before that;
    `proxy` is its identification as one. `caller`: identification of a peer that is no proxy.
    """

    peer: str | None
    opened: float = field(default_factory=time.monotonic)
    is_proxy: bool | None = None
    proxy: Identification | None = None
    caller: Identification | None = None
