"""One JSON stream on stdout, for structlog, the standard library and the servers.

Lines are formatted where they are logged, and written by a thread (`log_writer`), because a log
reader that stalls must not stop the service.

Values from requests cannot break a line: they are written as JSON strings.
Values bound with `structlog.contextvars` (request_id, trace_id, ...) are in every line of a
request.
"""

from __future__ import annotations

import json
import logging
import sys
from contextlib import suppress
from datetime import UTC, datetime
from typing import Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from kronos_api.telemetry.log_fields import ProcessFields, ordered
from kronos_api.telemetry.log_writer import FLUSH_SECONDS, LogWriter

Style = Literal["json", "console"]

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


def configure(level: str = "INFO", style: Style = "json", replica: str | None = None) -> None:
    """Send every log line of the process to stdout; may be called again.

    style: `json`, one object a line, or `console`, for people. replica: the field `replica` of each
    line; by default the name of the host. The servers' own access logs are turned off: the access
    log middleware replaces them.
    """
    global _own
    _own = ProcessFields(replica)
    structlog.configure(
        processors=[*_SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = _handler_for(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_SHARED,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _drop_exception_info,
                _own,
                _renderer(style),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    set_level(level)
    adopt_servers()
    logging.captureWarnings(True)


def set_level(level: str) -> None:
    """The lowest level that is logged from here on."""
    logging.getLogger().setLevel(level)


def _renderer(style: Style) -> Processor:
    if style == "json":
        return structlog.processors.JSONRenderer(serializer=_one_line)
    return structlog.dev.ConsoleRenderer(
        colors=sys.stdout.isatty(),
        sort_keys=False,
        exception_formatter=structlog.dev.plain_traceback,
    )


def flush(seconds: float = FLUSH_SECONDS) -> None:
    """Write the queued lines, for `seconds` at most: before a process ends by `os._exit`."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, LineHandler):
            handler.flush(seconds)


def take_dropped() -> int:
    """Log lines of this process that were lost since the last call."""
    handlers = logging.getLogger().handlers
    return sum(one.take_dropped() for one in handlers if isinstance(one, LineHandler))


class LineHandler(logging.Handler):
    """Hands each formatted line to a `LogWriter`.

    A stream without a file descriptor is in memory and cannot stall: it is written to directly.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self.stream = stream
        self._writer: LogWriter | None = None
        with suppress(OSError, ValueError):
            stream.fileno()
            self._writer = LogWriter(stream, _lost_line)

    def emit(self, record: logging.LogRecord) -> None:
        """Called by `logging` with its lock held."""
        try:
            line = self.format(record)
        except Exception as error:  # mostly arguments that do not match the message
            line = _line(
                "log_line_not_formatted",
                "error",
                logger=record.name,
                message=repr(record.msg)[:1000],
                reason=repr(error)[:1000],
            )
        if self._writer is not None:
            self._writer.put(line)
            return
        with suppress(ValueError):  # the stream is closed
            self.stream.write(line + "\n")
            self.stream.flush()

    def flush(self, seconds: float = FLUSH_SECONDS) -> None:
        """Wait until the lines are written, for `seconds` at most; called at exit."""
        if self._writer is not None:
            self._writer.flush(seconds)

    def take_dropped(self) -> int:
        """Lines that were lost since the last call."""
        return self._writer.take_dropped() if self._writer is not None else 0


def adopt_servers() -> None:
    """Make the servers' loggers write into the one stream; undoes handlers they were given."""
    for name in SERVER_LOGGERS + ACCESS_LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers = []
        logger.setLevel(logging.NOTSET)
        logger.propagate = name in SERVER_LOGGERS
        logger.disabled = not logger.propagate


_own = ProcessFields()
_handler: LineHandler | None = None  # of the last `configure`; it has a thread


def _handler_for(stream: TextIO) -> LineHandler:
    global _handler
    if _handler is None or _handler.stream is not stream:
        _handler = LineHandler(stream)
    return _handler


def _drop_exception_info(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Drop it: the traceback is in the line as text already."""
    event.pop("exc_info", None)
    event.pop("stack_info", None)
    return event


def _one_line(event: EventDict, **_: object) -> str:
    """`event` as strict JSON: ASCII only; values that JSON lacks become text."""
    try:
        return json.dumps(event, default=str, allow_nan=False)
    except ValueError:  # NaN or infinity
        return json.dumps({name: str(value) for name, value in event.items()})


def _lost_line(lines: int) -> str:
    return _line("log_lines_dropped", "warning", logger=__name__, lines=lines)


def _line(event: str, level: str, **fields: object) -> str:
    """A line made without `logging`."""
    timestamp = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    line = {"event": event, **fields, "level": level, "timestamp": timestamp}
    return _one_line(ordered(line | _own.own()))
