"""The fields of log lines: their order, and those that every line has."""

from __future__ import annotations

import os
import socket
from typing import Final

from structlog.typing import EventDict, WrappedLogger

LEADING: Final = ("timestamp", "level", "event")
PROCESS: Final = ("logger", "hostname", "replica", "pid")
REQUEST: Final = (
    *("request_id", "trace_id", "span_id", "container_name"),
    *("method", "endpoint", "status", "code", "field", "rule", "violations", "latency_ms"),
    *("parse_ms", "queue_ms", "inference_ms"),
    *("tokenize_ms", "prefill_ms", "decode_ms", "detokenize_ms", "write_ms"),
    *("series_id", "items", "history", "horizon", "samples"),
    *("temperature", "top_p", "top_k", "seed"),
)
ORDER: Final = (*LEADING, *PROCESS, *REQUEST)
"""Fields that come first, in this order; others follow in the order in which they were given."""


class ProcessFields:
    """Adds `hostname`, `replica` and `pid`, and puts the fields in their order."""

    def __init__(self, replica: str | None = None) -> None:
        self._hostname = socket.gethostname()
        self._replica = replica or self._hostname

    def __call__(self, _: WrappedLogger, __: str, event: EventDict) -> EventDict:
        """A processor of structlog; it runs in the process that logs."""
        return ordered({**event, **self.own()})

    def own(self) -> dict[str, object]:
        """The fields of this process."""
        return {"hostname": self._hostname, "replica": self._replica, "pid": os.getpid()}


def ordered(event: EventDict) -> EventDict:
    """`event` with its fields in their order."""
    first = {name: event[name] for name in ORDER if name in event}
    return first | {name: value for name, value in event.items() if name not in first}
