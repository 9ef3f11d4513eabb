"""The slots of a folder that several processes keep their metrics in.

A process maps its files and counts in them, so that any process can read what all have counted.
Which files are its own is told by a slot and not by its process id, which a container gives out
again and again: a process takes the lowest slot whose lock nobody holds, and counts on where the
last one in that slot ended. So no counter is ever lower than before, there are never more files
than processes at one time, however many come and go, and nothing has to be added up for the dead.
The system lets go of the lock of a process that dies, whatever it died of. While it serves, that is
noted in the slot's file: whoever finds the note but no lock has found a death.

A page of a mapped file that the file system has no room for kills the process that touches it.
The files are therefore written out before they are mapped: what is short of room fails then.
"""

from __future__ import annotations

import fcntl
import os
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

_DEATHS: Final = "deaths"


class Slots:
    """The slots of `folder`, of which this process has one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._pid = 0
        self._own = 0
        self._lock = -1

    def own(self) -> int:
        """The slot of this process; a process that was forked gets one of its own.

        Raises `StartupError` if there is no room for its files.
        """
        if self._pid != os.getpid():
            try:
                self._own = self._take()
            except OSError as error:
                raise cannot_keep(self.folder, error) from None
            self._pid = os.getpid()
        return self._own

    def clear(self) -> None:
        """Drop the gauges of processes that have ended."""
        for path in self.folder.glob("slot-*"):
            with suppress(FileNotFoundError), locked(path) as lock:
                if lock is not None:
                    self._clear(lock, path.name.removeprefix("slot-"))

    def begin(self) -> None:
        """Note that this process serves: if it ends before `end`, it has died.

        Raises `StartupError` if there is no room.
        """
        self.own()
        try:
            os.pwrite(self._lock, b"serving", 0)
        except OSError as error:
            raise cannot_keep(self.folder, error) from None

    def end(self) -> None:
        """Note that this process has stopped to serve, as it should."""
        self.own()
        os.ftruncate(self._lock, 0)

    def deaths(self) -> int:
        """How many processes have died while they served."""
        try:
            return (self.folder / _DEATHS).stat().st_size
        except FileNotFoundError:
            return 0

    def used_bytes(self) -> int:
        """What the files take of the file system."""
        total = 0
        for path in self.folder.glob("*.db"):
            with suppress(FileNotFoundError):
                total += path.stat().st_blocks * 512
        return total

    def _take(self) -> int:
        for slot in count(1):
            with locked(self.folder / f"slot-{slot}") as lock:
                if lock is None:
                    continue
                self._clear(lock, str(slot))
                make_room(self.folder, slot)
                self._lock = os.dup(lock)  # not closed: the lock is held while the process lives
                return slot
        raise AssertionError("unreachable")

    def _clear(self, lock: int, slot: str) -> None:
        """Drop what was true of the process that had `slot`, whose `lock` is held; count its death.

        It is counted under that lock, and so once; as one byte, which is written whole or not.
        """
        if os.fstat(lock).st_size:
            with suppress(OSError):  # without room, it is counted later
                with (self.folder / _DEATHS).open("ab") as deaths:
                    deaths.write(b".")
                os.ftruncate(lock, 0)
        for path in self.folder.glob(f"gauge_*_{slot}.db"):
            path.unlink(missing_ok=True)


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
        # Whoever reads all files meanwhile must not meet one that is not whole.
        unfinished = path.with_suffix(".new")
        unfinished.write_bytes(bytes(size))
        unfinished.rename(path)
