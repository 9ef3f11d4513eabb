"""The folder that the processes of one service keep their metrics in.

This module does not import prometheus_client, which decides when it is imported how values are
kept: `prepare` comes before that.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import stat
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

from kronos_api.telemetry.slots import Slots, cannot_keep, is_named, locked, make_folder, make_room

VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
"""Tells prometheus_client, in this process and in those that it starts, where the files are."""

_LOCK: Final = "lock"

_prepared: tuple[int, Path, int] | None = None  # process, folder, the lock that it holds


def prepare(parent: Path | None) -> Path:
    """Make a folder for the metrics of this process and of those it will start; return it.

    It is made in `parent`: by default in memory where the system offers that, else among the
    temporary files. Folders of services that live no more are removed from there, those of others
    that do live stay. It goes when this process ends. Called again, it changes nothing.

    Raises `StartupError` if nothing can be written there.
    """
    global _prepared
    if _prepared is not None and _prepared[0] == os.getpid():
        return _prepared[1]
    assert "prometheus_client" not in sys.modules, "metrics were imported before this"
    parent = parent or _default_parent()
    try:
        parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(parent)
        folder, lock = _make_folder(parent)
        try:
            make_room(folder, 1)
        except OSError:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)
            raise
    except OSError as error:
        raise cannot_keep(parent, error) from None
    _prepared = os.getpid(), folder, lock
    os.environ[VARIABLE] = str(folder)
    atexit.register(_remove_at_exit, folder, os.getpid())
    return folder


def mend() -> None:
    """Make the folder of `prepare` and its lock again if they were removed; so in the master."""
    global _prepared
    if _prepared is None or _prepared[0] != os.getpid():
        return
    pid, folder, lock = _prepared
    if is_named(folder / _LOCK, lock):
        return
    with suppress(OSError):  # it is tried again, and workers say what is wrong
        make_folder(folder)
        new = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        fcntl.flock(new, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(lock)
        _prepared = pid, folder, new


def prepared() -> Path | None:
    """The folder that metrics are kept in; None if this process keeps its own to itself."""
    named = os.environ.get(VARIABLE)
    return Path(named) if named else None


def forget() -> None:
    """Drop the gauges of processes that have ended; what they counted stays."""
    if (folder := prepared()) is not None:
        Slots(folder).clear()


def _default_parent() -> Path:
    memory = Path("/dev/shm")
    return memory if os.access(memory, os.W_OK) else Path(tempfile.gettempdir())


def _prefix() -> str:
    return f"kronos-metrics-{os.getuid()}-"


def _make_folder(parent: Path) -> tuple[Path, int]:
    """A folder of our own, and the lock that says so to others that look for leftovers."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_prefix(), dir=parent))
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.fstat(lock).st_nlink:
            return folder, lock
        os.close(lock)  # another took it for a leftover before it was locked


def _remove_leftovers(parent: Path) -> None:
    """Remove what services left that ended without a chance to; the lock of a folder tells."""
    for folder in parent.glob(f"{_prefix()}*"):
        with suppress(OSError):
            found = folder.lstat()
            # Without a lock it is just being made.
            if (
                stat.S_ISDIR(found.st_mode)
                and found.st_uid == os.getuid()
                and (folder / _LOCK).exists()
            ):
                with locked(folder / _LOCK) as lock:
                    if lock is not None:
                        _remove(folder)


def _remove(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name != _LOCK:
            path.unlink(missing_ok=True)
    # Last, so that whatever interrupts this leaves a leftover that is known for one.
    (folder / _LOCK).unlink(missing_ok=True)
    folder.rmdir()


def _remove_at_exit(folder: Path, pid: int) -> None:
    if os.getpid() == pid:  # not in those that were forked
        with suppress(OSError):
            _remove(folder)
