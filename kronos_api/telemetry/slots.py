"""The slots of a directory in which several processes keep their metrics.

A process maps its files and counts in them, so that any process can read what all have counted.
Its files are named by a slot and not by its process id, which a container assigns again and again:
a process takes the lowest slot whose lock is free, and continues from the values it finds there. So
no counter ever decreases, there are never more files than processes at one time, and the files of
dead processes need not be added up. The kernel releases the lock of a process however it ends,
which is why slots are not assigned by Gunicorn's `pre_fork` and freed by its `child_exit`: these
hooks would replace the locks alone, and run later than the death.

The directory may be removed under a running service, because something cleans /dev/shm. A process
still has its files open then, and `restore` gives them names again, in another slot: the change of
slot makes prometheus_client map them again. Only the counts of ended processes are lost.

A process that touches a mapped page for which the file system has no space is killed (SIGBUS). The
files are therefore written out before they are mapped, which fails with an error instead.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Final

from kronos_api.errors import StartupError

KIB: Final = 1024
RESERVED_BYTES: Final = {
    "counter": 128 * KIB,
    "histogram": 256 * KIB,
    "gauge_livemax": 64 * KIB,
    "gauge_livesum": 64 * KIB,
}
"""By kind of file: the bytes that are written out before it is mapped."""


class Slots:
    """The slots of `directory`, of which this process has one."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._pid = 0
        self._own = 0
        self._lock = -1
        self._files: dict[str, int] = {}  # of this process by kind, held open for `restore`
        self._restoring = threading.Lock()

    def own(self) -> int:
        """The slot of this process; a forked process takes one of its own.

        Raises `StartupError` if its files cannot be written.
        """
        if self._pid != os.getpid():
            self._close()  # the parent's
            self._restoring = threading.Lock()
            try:
                self._take()
            except OSError as error:
                raise cannot_write(self.directory, error) from None
            self._pid = os.getpid()
        return self._own

    def restore(self, force: bool = False) -> bool:
        """Make the directory and this process's files again if they were removed; whether so.

        `force`: even if they are in place, because they could not be mapped. Any thread may call
        it, at any time. Raises `StartupError` if they cannot be made.
        """
        with self._restoring:
            if self._pid != os.getpid() or (self._in_place() and not force):
                return False
            try:
                self._take(before=self._own)
            except OSError as error:
                raise cannot_write(self.directory, error) from None
        return True

    def drop_dead_gauges(self) -> None:
        """Drop the gauges of processes that have ended; their counters stay."""
        for path in self.directory.glob("slot-*"):
            with suppress(FileNotFoundError), try_lock(path) as lock:
                if lock is not None:
                    self._drop_gauges(path.name.removeprefix("slot-"))

    def used_bytes(self) -> int:
        """The bytes that the files occupy on the file system."""
        total = 0
        for path in self.directory.glob("*.db"):
            with suppress(FileNotFoundError):
                total += path.stat().st_blocks * 512
        return total

    def _take(self, before: int | None = None) -> None:
        """Take a free slot: the lowest, or, with the files of slot `before`, an unused one."""
        make_directory(self.directory)
        for slot in count(1):
            used = any(self._path(kind, slot).exists() for kind in RESERVED_BYTES)
            if before is not None and (slot == before or used):
                continue
            with try_lock(self.directory / f"slot-{slot}") as lock:
                if lock is None:
                    continue
                if before is None:
                    self._drop_gauges(str(slot))
                else:
                    self._move(before, slot)
                reserve(self.directory, slot)
                held = os.dup(lock)  # stays open: the lock is held while the process lives
                self._close()
                self._lock, self._own = held, slot
                for kind in RESERVED_BYTES:
                    self._files[kind] = os.open(self._path(kind, slot), os.O_RDONLY | os.O_CLOEXEC)
                return

    def _move(self, before: int, slot: int) -> None:
        """Rename the files of slot `before` to those of `slot`; copy those that were removed."""
        try:
            for kind, file in self._files.items():
                old, new = self._path(kind, before), self._path(kind, slot)
                if names_file(old, file):
                    old.rename(new)
                else:
                    _write_whole(new, os.pread(file, os.fstat(file).st_size, 0))
        except OSError:  # `_files` still has all; a part of them must not be counted twice
            for kind in self._files:
                self._path(kind, slot).unlink(missing_ok=True)
            raise

    def _in_place(self) -> bool:
        """Whether all files of this process still have their names."""
        return names_file(self.directory / f"slot-{self._own}", self._lock) and all(
            names_file(self._path(kind, self._own), file) for kind, file in self._files.items()
        )

    def _close(self) -> None:
        for file in (self._lock, *self._files.values()):
            if file >= 0:
                os.close(file)
        self._lock = -1
        self._files = {}

    def _drop_gauges(self, slot: str) -> None:
        """Drop the gauges of the process that had `slot`, whose lock is held."""
        for path in self.directory.glob(f"gauge_*_{slot}.db"):
            path.unlink(missing_ok=True)

    def _path(self, kind: str, slot: int) -> Path:
        return self.directory / f"{kind}_{slot}.db"


def make_directory(directory: Path) -> None:
    """Make `directory` unless it exists; raises OSError if it belongs to another user."""
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        directory.mkdir(mode=0o700)
    except FileExistsError:
        found = directory.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            raise PermissionError(errno.EPERM, "it is not a directory of this user") from None


def cannot_write(directory: Path, error: OSError) -> StartupError:
    """Why metrics cannot be written to `directory`, in one line."""
    reason = (error.strerror or str(error)).lower()
    return StartupError(
        f"cannot write metrics to {directory}: {reason}. Set KRONOS_METRICS_DIR to a directory that"
        " this user can write to, for example /dev/shm."
    )


@contextmanager
def try_lock(path: Path) -> Iterator[int | None]:
    """Lock the file `path`, made if need be; None if another process holds the lock."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        yield None
        return
    try:
        yield file
    finally:
        os.close(file)


def reserve(directory: Path, slot: int) -> None:
    """Write out the missing files of `slot`; raises OSError if there is no space for them."""
    for kind, size in RESERVED_BYTES.items():
        path = directory / f"{kind}_{slot}.db"
        if path.exists():
            continue
        _write_whole(path, bytes(size))


def _write_whole(path: Path, content: bytes) -> None:
    """Write a file that a scrape, which reads all files, never meets half written."""
    unfinished = path.with_suffix(".new")
    unfinished.write_bytes(content)
    unfinished.rename(path)


def names_file(path: Path, file: int) -> bool:
    """Whether `path` names the open `file`."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file))
    except OSError:
        return False
