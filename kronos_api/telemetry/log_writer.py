"""Writes log lines in a thread of its own, so that a stalled reader blocks no other thread.

stdout is mostly a pipe, and a write to a full pipe blocks. Lines wait in a bounded queue. A line is
dropped and counted if the queue is full or it cannot be written (closed pipe, full disk). When
writing succeeds again, one line reports the number of lost ones. The standard library's
`QueueListener` has neither a count of lost lines nor a thread in forked processes.

Each process has its own thread, which starts with the first line. A forked process starts with an
empty queue: its parent writes the lines in the parent's queue.
"""

from __future__ import annotations

import errno
import os
import select
import threading
import weakref
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final, Protocol

MAX_LINES: Final = 10_000
"""Lines in the queue of each process at most; a line has about 400 bytes."""
FLUSH_SECONDS: Final = 2.0
"""Seconds that a process waits at its end until its last lines are written."""
POLL_SECONDS: Final = 1.0


class Stream(Protocol):
    """A text stream that has a file descriptor."""

    def fileno(self) -> int:
        """The descriptor; raises ValueError once the stream is closed."""
        ...


class LogWriter:
    """Writes whole lines to `stream`, in the order of `put`.

    `lost_line` makes the line that reports a number of lost ones. `write` is `os.write`.
    """

    def __init__(
        self,
        stream: Stream,
        lost_line: Callable[[int], str],
        *,
        max_lines: int = MAX_LINES,
        write: Callable[[int, memoryview], int] = os.write,
    ) -> None:
        self._stream = stream
        self._lost_line = lost_line
        self._max_lines = max_lines
        self._write_bytes = write
        self._reset()
        _writers.add(self)

    def _reset(self) -> None:
        self._queue: SimpleQueue[str | threading.Event] = SimpleQueue()
        self._lock = threading.RLock()  # a signal handler may log while its thread holds it
        self._running = False
        self._dropped = 0  # for `take_dropped`
        self._unreported = 0  # for the line in the log
        self._torn = False

    def put(self, line: str) -> None:
        """Queue `line`, without its newline; drop it if the queue is full. Never blocks."""
        # SimpleQueue, because a signal handler may log while its thread is inside `put`.
        if self._queue.qsize() >= self._max_lines:
            self._lose(1)
            return
        self._queue.put(line)
        if not self._running:
            self._start()

    def flush(self, seconds: float = FLUSH_SECONDS) -> bool:
        """Wait until the lines queued so far are written, but not longer; whether they are."""
        if not self._running:
            return True
        written = threading.Event()
        self._queue.put(written)
        return written.wait(seconds)

    def take_dropped(self) -> int:
        """Lines lost in this process since the last call."""
        with self._lock:
            taken, self._dropped = self._dropped, 0
        return taken

    def _start(self) -> None:
        self._running = True
        try:
            threading.Thread(target=self._main, name="log", daemon=True).start()
        except RuntimeError:  # no thread now; the next line tries again
            self._running = False

    def _lose(self, lines: int) -> None:
        with self._lock:
            self._dropped += lines
            self._unreported += lines

    def _main(self) -> None:
        while True:
            item = self._queue.get()
            if isinstance(item, threading.Event):
                item.set()
            elif not self._report_lost() or not self._write(item):
                self._lose(1)

    def _report_lost(self) -> bool:
        """Write the line about lost lines, if there are any; False if that fails."""
        with self._lock:
            lost = self._unreported
        if not lost:
            return True
        if not self._write(self._lost_line(lost)):
            return False
        with self._lock:
            self._unreported -= lost
        return True

    def _write(self, line: str) -> bool:
        """Write `line`, blocking as long as the reader does; False if it cannot be written."""
        # A line of which a part was written ends there, before the next one.
        rest = memoryview(("\n" * self._torn + line + "\n").encode())
        whole = len(rest)
        try:
            while rest:
                rest = rest[self._write_some(rest) :]
        except (OSError, ValueError):
            self._torn = self._torn if len(rest) == whole else True
            return False
        self._torn = False
        return True

    def _write_some(self, rest: memoryview) -> int:
        descriptor = self._stream.fileno()
        try:
            return self._write_bytes(descriptor, rest)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EINTR):
                raise
        # Another process made the pipe non-blocking.
        select.select([], [descriptor], [], POLL_SECONDS)
        return 0


_writers: weakref.WeakSet[LogWriter] = weakref.WeakSet()


def _reset_after_fork() -> None:
    for writer in list(_writers):
        writer._reset()


os.register_at_fork(after_in_child=_reset_after_fork)
