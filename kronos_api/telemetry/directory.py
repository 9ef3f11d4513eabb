"""The directory in which the processes of one service keep their metrics.

The service that made a directory holds a lock in it, so that the next start can tell a running
service's directory from one that a killed service left behind.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from kronos_api.telemetry.slots import (
    Slots,
    cannot_write,
    make_directory,
    names_file,
    reserve,
    try_lock,
)

_LOCK: Final = "lock"

_created: tuple[int, Path, int] | None = None  # process, directory, the lock that it holds


def create_directory(parent: Path | None) -> Path:
    """Make a directory for the metrics of this process and of those it will start; return it.

    It is made in `parent`: by default in `/dev/shm`, or among the temporary files where there is
    none. Directories of services that have ended are removed from `parent`. This one is removed
    when this process ends. A second call returns the same directory.

    Raises `StartupError` if nothing can be written there.
    """
    global _created
    if _created is not None and _created[0] == os.getpid():
        return _created[1]
    parent = parent or _default_parent()
    try:
        parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(parent)
        directory, lock = _make_locked(parent)
        try:
            reserve(directory, 1)
        except OSError:
            shutil.rmtree(directory, ignore_errors=True)
            os.close(lock)
            raise
    except OSError as error:
        raise cannot_write(parent, error) from None
    _created = os.getpid(), directory, lock
    atexit.register(_remove_at_exit, directory, os.getpid())
    return directory


def restore_directory() -> None:
    """Make the directory of `create_directory` and its lock again if they were removed.

    Does nothing in a process that has not created one.
    """
    global _created
    if _created is None or _created[0] != os.getpid():
        return
    pid, directory, lock = _created
    if names_file(directory / _LOCK, lock):
        return
    with suppress(OSError):  # retried at the next call; workers log the reason
        make_directory(directory)
        new = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        fcntl.flock(new, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(lock)
        _created = pid, directory, new


class DirectoryUsage(Collector):
    """How full the file system of the workers' metrics is."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots

    def collect(self) -> Iterator[Metric]:
        """Sizes in bytes, read at each scrape."""
        system = os.statvfs(self._slots.directory)
        yield GaugeMetricFamily(
            "kronos_metrics_directory_bytes",
            "Bytes of the workers' metrics on their file system.",
            self._slots.used_bytes(),
        )
        yield GaugeMetricFamily(
            "kronos_metrics_file_system_bytes",
            "Size of the file system of the workers' metrics.",
            system.f_blocks * system.f_frsize,
        )
        yield GaugeMetricFamily(
            "kronos_metrics_file_system_free_bytes",
            "Free bytes of the file system of the workers' metrics.",
            system.f_bavail * system.f_frsize,
        )


def _default_parent() -> Path:
    memory = Path("/dev/shm")
    return memory if os.access(memory, os.W_OK) else Path(tempfile.gettempdir())


def _prefix() -> str:
    return f"kronos-metrics-{os.getuid()}-"


def _make_locked(parent: Path) -> tuple[Path, int]:
    """A new directory and the descriptor of its held lock."""
    while True:
        directory = Path(tempfile.mkdtemp(prefix=_prefix(), dir=parent))
        lock = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.fstat(lock).st_nlink:
            return directory, lock
        os.close(lock)  # another start removed it as a leftover before it was locked


def _remove_leftovers(parent: Path) -> None:
    """Remove the directories whose lock no process holds: their services were killed."""
    for directory in parent.glob(f"{_prefix()}*"):
        with suppress(OSError):
            found = directory.lstat()
            # A directory without a lock file is just being made.
            if (
                stat.S_ISDIR(found.st_mode)
                and found.st_uid == os.getuid()
                and (directory / _LOCK).exists()
            ):
                with try_lock(directory / _LOCK) as lock:
                    if lock is not None:
                        _remove(directory)


def _remove(directory: Path) -> None:
    for path in directory.iterdir():
        if path.name != _LOCK:
            path.unlink(missing_ok=True)
    # Last, so that an interrupted removal leaves a directory that is recognised as a leftover.
    (directory / _LOCK).unlink(missing_ok=True)
    directory.rmdir()


def _remove_at_exit(directory: Path, pid: int) -> None:
    if os.getpid() == pid:  # not in forked processes
        with suppress(OSError):
            _remove(directory)
