"""One count for all workers of a host, in a small file.

A store of our own, because a host without Redis has no shared store, and the count must be exact
even if a worker is killed (ADR 7).

The file is in memory (/dev/shm). It is read and written under a lock, not mapped: a full file
system is then an error to handle, where touching a mapped page would kill the worker. The kernel
releases the lock of a worker that dies. A slot is written in one piece before its verdict is
returned, so a worker can be killed at any point.

A caller's slot comes from a hash with a random key that the file holds. Without the key, a caller
could compute its slot, and so fill the slots of others.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import stat
import struct
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Final, Literal

import structlog

from kronos_api.errors import StartupError
from kronos_api.ratelimit.store import Reading, StoreUnavailable, WindowCounter
from kronos_api.telemetry.metrics import metrics

LAYOUT: Final = 2
"""Version of the layout, in the name of the file: workers of two versions never share a file."""
KEY_BYTES: Final = 16
HEADER_BYTES: Final = 64
"""Size of the start of the file, which holds the key of the hash; the buckets follow."""
SLOT: Final = struct.Struct("=16sqq")
"""Digest of caller and quota; end of the window, in seconds since the epoch; total granted."""
IN_BUCKET: Final = 32
BUCKETS: Final = 1024
BUCKET_BYTES: Final = IN_BUCKET * SLOT.size
"""A caller's slot is in one bucket: one read, and no search through the file."""
LOCK_PAUSE: Final = 0.001

log = structlog.stdlib.get_logger("kronos_api.ratelimit")

_Slot = tuple[int, int, int]  # offset in the file, end of its window, total


class HostStore:
    """Counts in a file in `folder`; by default in memory where the system offers that."""

    kind: Literal["redis", "host"] = "host"

    def __init__(self, folder: Path | None = None) -> None:
        self.path = (folder or default_folder()) / f"kronos-rate-limit-{LAYOUT}-{os.getuid()}"
        self._file = -1
        self._size = 0

    async def open(self) -> None:
        try:
            self._open()
        except (OSError, StoreUnavailable) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise StartupError(
                f"the rate limit cannot be kept in {self.path}: {reason.lower()};"
                " set KRONOS_RATE_LIMIT_DIR to a folder that is writable"
            ) from None

    async def check(self) -> None:
        while not self._locked():
            await asyncio.sleep(LOCK_PAUSE)
        fcntl.flock(self._file, fcntl.LOCK_UN)

    async def count(
        self, caller: str, counters: Sequence[WindowCounter], cost: int
    ) -> tuple[bool, list[Reading]]:
        # A worker holds the lock for microseconds, unless it is stopped meanwhile.
        while not self._locked():
            await asyncio.sleep(LOCK_PAUSE)
        try:
            with self._os_errors():
                return self._count(caller, counters, cost)
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    async def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _count(
        self, caller: str, counters: Sequence[WindowCounter], cost: int
    ) -> tuple[bool, list[Reading]]:
        """Count with the lock held; the clock is read under it, so that windows never go back."""
        now = time.time()
        key = self._key()
        taken: set[int] = set()
        slots = []
        for counter in counters:
            quota = counter.quota
            window = quota.window(now)
            digest = blake2b(quota.key(caller).encode(), digest_size=16, key=key).digest()
            offset, end, total = self._slot(digest, quota.end(window), now, taken)
            taken.add(offset)
            # Granted locally, and not in the file yet.
            unreported = counter.unreported if counter.window == window else 0
            slots.append(
                (counter, window, digest, unreported, offset, end, max(0, total + unreported))
            )
        allowed = all(total + cost <= counter.quota.amount for counter, *_, total in slots)
        granted = cost if allowed else 0
        readings = []
        for counter, window, digest, unreported, offset, end, total in slots:
            total += granted
            if granted or unreported:
                os.pwrite(self._file, SLOT.pack(digest, end, total), offset)
                # Reported now, even if the call has timed out meanwhile.
                counter.last_total += unreported
                counter.unreported -= unreported
            readings.append(Reading(window, total, end - now))
        return allowed, readings

    def _key(self) -> bytes:
        """The key of this file's hash; the first worker that counts in the file makes it."""
        key = os.pread(self._file, KEY_BYTES, 0)
        if not any(key):
            key = os.urandom(KEY_BYTES)
            os.pwrite(self._file, key, 0)
        return key

    def _slot(self, digest: bytes, end: int, now: float, taken: Collection[int]) -> _Slot:
        """The slot of `digest` in the window that ends at `end`; slots in `taken` are left out.

        A new digest takes the slot whose window ended first. If no window has ended, the count
        whose window ends first is evicted, and the eviction is counted.
        """
        offset = HEADER_BYTES + int.from_bytes(digest[:4], "little") % BUCKETS * BUCKET_BYTES
        bucket = os.pread(self._file, BUCKET_BYTES, offset)
        oldest: tuple[int, int] | None = None
        for known, known_end, total in SLOT.iter_unpack(bucket):
            if known == digest:
                return offset, end, total if known_end == end else 0
            if offset not in taken and (oldest is None or known_end < oldest[0]):
                oldest = known_end, offset
            offset += SLOT.size
        if oldest is None:
            raise StoreUnavailable("a caller has more quotas than a bucket has slots")
        if oldest[0] > now:
            metrics.rate_limit_evictions.inc()
        return oldest[1], end, 0

    def _locked(self) -> bool:
        """Take the lock if it is free; False if it is not. Raises `StoreUnavailable`."""
        with self._os_errors():
            if self._file < 0:
                self._open()
            else:
                self._restore()
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

    def _restore(self) -> None:
        """Open the file again if it was removed or cut: new workers open it by its name."""
        found = os.fstat(self._file)
        if found.st_nlink and found.st_size == self._size:
            return
        os.close(self._file)
        self._file = -1
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._open()
        log.warning("rate_limit_file_restored", path=str(self.path))

    def _open(self) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(self.path, flags, 0o600)
        try:
            found = os.fstat(file)
            if not stat.S_ISREG(found.st_mode) or found.st_uid != os.getuid():
                raise StoreUnavailable("it is not a file of this user")
            if found.st_size != file_bytes():
                os.ftruncate(file, file_bytes())
        except BaseException:
            os.close(file)
            raise
        self._file, self._size = file, os.fstat(file).st_size

    @contextmanager
    def _os_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreUnavailable((error.strerror or str(error)).lower()) from None


def file_bytes() -> int:
    """Size of the file."""
    return HEADER_BYTES + BUCKETS * BUCKET_BYTES


def default_folder() -> Path:
    """Memory that all processes of the host share; a folder for temporary files elsewhere."""
    memory = Path("/dev/shm")
    return memory if os.access(memory, os.W_OK) else Path(tempfile.gettempdir())
