"""One count for all workers of a host, in a small file.

A file in memory (/dev/shm) that is read and written under a lock, not mapped: a full file system
is then an error to handle, where touching a mapped page would kill the worker. The kernel lets go
of the lock of a worker that dies. A slot is written in one piece, and what it counts is answered
only afterwards, so a worker may be killed at any point.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import stat
import struct
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Final, Literal

from kronos_api.errors import StartupError
from kronos_api.ratelimit.store import Reading, StoreOut, Tally

SLOT: Final = struct.Struct("=16sqq")
"""Digest of a caller under a quota; end of its window, in seconds since the epoch; its total."""
IN_BUCKET: Final = 32
BUCKETS: Final = 1024
BUCKET_BYTES: Final = IN_BUCKET * SLOT.size
"""A caller's slot is in one of these: one read, and no search through the file."""
LOCK_PAUSE: Final = 0.001

_Slot = tuple[int, int, int]  # offset in the file, end of its window, total


class HostStore:
    """Counts in a file of `folder`; by default in memory where the system offers that."""

    kind: Literal["redis", "host"] = "host"

    def __init__(self, folder: Path | None = None) -> None:
        self.path = (folder or default_folder()) / f"kronos-rate-limit-{os.getuid()}"
        self._file = -1

    async def open(self) -> None:
        try:
            self._open()
        except (OSError, StoreOut) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise StartupError(
                f"cannot count calls in {self.path}: {reason.lower()};"
                " KRONOS_RATE_LIMIT_DIR chooses another folder"
            ) from None

    async def check(self) -> None:
        while not self._locked():
            await asyncio.sleep(LOCK_PAUSE)
        fcntl.flock(self._file, fcntl.LOCK_UN)

    async def count(
        self, caller: str, tallies: Sequence[Tally], cost: int
    ) -> tuple[bool, list[Reading]]:
        # Whoever has the lock needs it for microseconds, unless it was stopped just then.
        while not self._locked():
            await asyncio.sleep(LOCK_PAUSE)
        try:
            with self._told():
                return self._count(caller, tallies, cost)
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    async def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _count(
        self, caller: str, tallies: Sequence[Tally], cost: int
    ) -> tuple[bool, list[Reading]]:
        """With the lock; the clock is read with it, too, so that windows never go back."""
        now = time.time()
        slots = []
        for tally in tallies:
            quota = tally.quota
            window = quota.window(now)
            digest = blake2b(quota.key(caller).encode(), digest_size=16).digest()
            offset, end, total = self._slot(digest, quota.end(window), now)
            alone = tally.since if tally.window == window else 0  # which the file does not know of
            slots.append((tally, window, digest, alone, offset, end, max(0, total + alone)))
        allowed = all(total + cost <= tally.quota.amount for tally, *_, total in slots)
        granted = cost if allowed else 0
        readings = []
        for tally, window, digest, alone, offset, end, total in slots:
            total += granted
            if granted or alone:
                os.pwrite(self._file, SLOT.pack(digest, end, total), offset)
                # Now it knows, whether or not anybody still waits for its answer.
                tally.heard += alone
                tally.since -= alone
            readings.append(Reading(window, total, end - now))
        return allowed, readings

    def _slot(self, digest: bytes, end: int, now: float) -> _Slot:
        """The slot of `digest` in the window that ends at `end`."""
        offset = int.from_bytes(digest[:4], "little") % BUCKETS * BUCKET_BYTES
        bucket = os.pread(self._file, BUCKET_BYTES, offset)
        free = None
        for known, known_end, total in SLOT.iter_unpack(bucket):
            if known == digest:
                return offset, end, total if known_end == end else 0
            if free is None and known_end <= now:
                free = offset
            offset += SLOT.size
        if free is None:
            raise StoreOut("more callers than there is room for")
        return free, end, 0

    def _locked(self) -> bool:
        """Whether the lock is ours now; what is wrong with the file is `StoreOut`."""
        with self._told():
            if self._file < 0:
                self._open()
            elif os.fstat(self._file).st_nlink == 0:  # cleaned away: later workers have another
                os.close(self._file)
                self._file = -1
                self._open()
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

    def _open(self) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(self.path, flags, 0o600)
        try:
            found = os.fstat(file)
            if not stat.S_ISREG(found.st_mode) or found.st_uid != os.getuid():
                raise StoreOut("it is not a file of ours")
            if found.st_size != BUCKETS * BUCKET_BYTES:
                os.ftruncate(file, BUCKETS * BUCKET_BYTES)
        except BaseException:
            os.close(file)
            raise
        self._file = file

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreOut((error.strerror or str(error)).lower()) from None


def default_folder() -> Path:
    """Memory that all processes of the host share; a folder for temporary files elsewhere."""
    memory = Path("/dev/shm")
    return memory if os.access(memory, os.W_OK) else Path(tempfile.gettempdir())
