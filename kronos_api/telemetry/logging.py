"""One JSON stream on stdout: structlog's lines, the standard library's and the server's alike.

Values from outside cannot break a line: whatever they hold, they are written as JSON strings.
Values bound with `structlog.contextvars` (request_id, trace_id, ...) are in every line of a
request.
"""

from __future__ import annotations

import json
import logging
import sys

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

SERVER_LOGGERS = ("uvicorn", "uvicorn.error", "uvicorn.asgi", "gunicorn", "gunicorn.error")
ACCESS_LOGGERS = ("uvicorn.access", "gunicorn.access")

_SHARED: tuple[Processor, ...] = (
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.PositionalArgumentsFormatter(),
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
)


def configure(level: str = "INFO") -> None:
    """Send every log line of the process to stdout as one JSON object; may be called again.

    The servers' own access logs are turned off: the access log middleware replaces them.
    """
    structlog.configure(
        processors=[*_SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_SHARED,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _drop_exception_info,
                structlog.processors.JSONRenderer(serializer=_one_line),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    adopt_servers()
    logging.captureWarnings(True)


def adopt_servers() -> None:
    """Let the servers' loggers write into the one stream, whatever they have been given since."""
    for name in SERVER_LOGGERS + ACCESS_LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers = []
        logger.setLevel(logging.NOTSET)
        logger.propagate = name in SERVER_LOGGERS
        logger.disabled = not logger.propagate


def _drop_exception_info(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """The traceback is in the line as text by now."""
    event.pop("exc_info", None)
    event.pop("stack_info", None)
    return event


def _one_line(event: EventDict, **_: object) -> str:
    """`event` as JSON, strictly: ASCII only, and what JSON has no form for as text."""
    try:
        return json.dumps(event, default=str, allow_nan=False)
    except ValueError:  # NaN or infinity
        return json.dumps({name: str(value) for name, value in event.items()})
