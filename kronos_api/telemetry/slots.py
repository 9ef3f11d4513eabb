"""The slots of a folder that several processes keep their metrics in.

A process maps its files and counts in them, so that any process can read what all have counted.
Which files are its own is told by a slot and not by its process id, which a container gives out
again and again: a process takes the lowest slot whose lock nobody holds, and counts on where the
last one in that slot ended. So no counter is ever lower than before, there are never more files
than processes at one time, however many come and go, and nothing has to be added up for the dead.
The system lets go of the lock of a process that dies, whatever it died of.

The folder may be lost under a running service, because something cleans /dev/shm. A process still
has its files open then, and `mend` gives them names again, in another slot: the change of slot is
what makes prometheus_client map them again. Only what ended processes had counted is lost.

A page of a mapped file that the file system has no room for kills the process that touches it.
The files are therefore written out before they are mapped: what is short of room fails then.
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
ROOM: Final = {
    "counter": 128 * KIB,
    "histogram": 256 * KIB,
    "gauge_livemax": 64 * KIB,
    "gauge_livesum": 64 * KIB,
}
"""What a process keeps in which file, and bytes that are taken for it at once."""


class Slots:
    """The slots of `folder`, of which this process has one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._pid = 0
        self._own = 0
        self._lock = -1
        self._files: dict[str, int] = {}  # of this process by kind, held open for `mend`
        self._mending = threading.Lock()

    def own(self) -> int:
        """The slot of this process; a process that was forked gets one of its own.

        Raises `StartupError` if there is no room for its files.
        """
        if self._pid != os.getpid():
            self._close()  # the parent's
            self._mending = threading.Lock()
            try:
                self._take()
            except OSError as error:
                raise cannot_keep(self.folder, error) from None
            self._pid = os.getpid()
        return self._own

    def mend(self, again: bool = False) -> bool:
        """Make the folder and this process' files again if they were removed; whether they were.

        `again`: in any case, because they could not be mapped. Any thread may call it, at any time.
        Raises `StartupError` if they cannot be made.
        """
        with self._mending:
            if self._pid != os.getpid() or (self._in_place() and not again):
                return False
            try:
                self._take(before=self._own)
            except OSError as error:
                raise cannot_keep(self.folder, error) from None
        return True

    def clear(self) -> None:
        """Drop the gauges of processes that have ended."""
        for path in self.folder.glob("slot-*"):
            with suppress(FileNotFoundError), locked(path) as lock:
                if lock is not None:
                    self._clear(path.name.removeprefix("slot-"))

    def used_bytes(self) -> int:
        """What the files take of the file system."""
        total = 0
        for path in self.folder.glob("*.db"):
            with suppress(FileNotFoundError):
                total += path.stat().st_blocks * 512
        return total

    def _take(self, before: int | None = None) -> None:
        """Take a free slot: the lowest, or, with the files of slot `before`, an unused one."""
        make_folder(self.folder)
        for slot in count(1):
            used = any(self._path(kind, slot).exists() for kind in ROOM)
            if before is not None and (slot == before or used):
                continue
            with locked(self.folder / f"slot-{slot}") as lock:
                if lock is None:
                    continue
                if before is None:
                    self._clear(str(slot))
                else:
                    self._move(before, slot)
                make_room(self.folder, slot)
                held = os.dup(lock)  # not closed: the lock is held while the process lives
                self._close()
                self._lock, self._own = held, slot
                for kind in ROOM:
                    self._files[kind] = os.open(self._path(kind, slot), os.O_RDONLY | os.O_CLOEXEC)
                return

    def _move(self, before: int, slot: int) -> None:
        """Give the files of slot `before` the names of `slot`, by a copy where they have none."""
        try:
            for kind, file in self._files.items():
                old, new = self._path(kind, before), self._path(kind, slot)
                if is_named(old, file):
                    old.rename(new)
                else:
                    _write_whole(new, os.pread(file, os.fstat(file).st_size, 0))
        except OSError:  # `_files` still has all; a part of them must not be counted twice
            for kind in self._files:
                self._path(kind, slot).unlink(missing_ok=True)
            raise

    def _in_place(self) -> bool:
        """Whether all files of this process still have their names."""
        return is_named(self.folder / f"slot-{self._own}", self._lock) and all(
            is_named(self._path(kind, self._own), file) for kind, file in self._files.items()
        )

    def _close(self) -> None:
        for file in (self._lock, *self._files.values()):
            if file >= 0:
                os.close(file)
        self._lock = -1
        self._files = {}

    def _clear(self, slot: str) -> None:
        """Drop what was true of the process that had `slot`, whose lock is held."""
        for path in self.folder.glob(f"gauge_*_{slot}.db"):
            path.unlink(missing_ok=True)

    def _path(self, kind: str, slot: int) -> Path:
        return self.folder / f"{kind}_{slot}.db"


def make_folder(folder: Path) -> None:
    """Make `folder` if it is not there; raises OSError if it is not this user's own."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700)
    except FileExistsError:
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            raise PermissionError(errno.EPERM, "it is not a folder of this user") from None


def cannot_keep(folder: Path, error: OSError) -> StartupError:
    """The one line that tells why metrics cannot be kept in `folder`."""
    reason = (error.strerror or str(error)).lower()
    return StartupError(
        f"cannot keep metrics in {folder}: {reason}; KRONOS_METRICS_DIR chooses another folder"
    )


@contextmanager
def locked(path: Path) -> Iterator[int | None]:
    """A file whose lock is ours meanwhile, made if need be; None if another process holds it."""
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


def make_room(folder: Path, slot: int) -> None:
    """Write out the files of `slot` that are not there; raises OSError without room for them."""
    for kind, size in ROOM.items():
        path = folder / f"{kind}_{slot}.db"
        if path.exists():
            continue
        _write_whole(path, bytes(size))


def _write_whole(path: Path, content: bytes) -> None:
    """Write a file that a scrape, which reads all files, never meets half written."""
    unfinished = path.with_suffix(".new")
    unfinished.write_bytes(content)
    unfinished.rename(path)


def is_named(path: Path, file: int) -> bool:
    """Whether `path` names the open `file`."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file))
    except OSError:
        return False
