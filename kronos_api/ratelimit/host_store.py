"""One count for all workers of a host, in a small file.

A file in memory (/dev/shm) that is read and written under a lock, not mapped: a full file system
is then an error to handle, where touching a mapped page would kill the worker. The kernel lets go
of the lock of a worker that dies. A slot is written in one piece, and what it counts is answered
only afterwards, so a worker may be killed at any point.

Callers are placed by a hash with a random key, which stands in the file. A caller that could
compute its place could fill the places of others.
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
from kronos_api.ratelimit.store import Reading, StoreOut, Tally
from kronos_api.telemetry.metrics import metrics

LAYOUT: Final = 2
"""Version of the layout, in the name of the file: workers of two versions never share one."""
KEY_BYTES: Final = 16
HEADER_BYTES: Final = 64
"""The file begins with the key of its hash; then come the buckets."""
SLOT: Final = struct.Struct("=16sqq")
"""Digest of a caller under a quota; end of its window, in seconds since the epoch; its total."""
IN_BUCKET: Final = 32
BUCKETS: Final = 1024
BUCKET_BYTES: Final = IN_BUCKET * SLOT.size
"""A caller's slot is in one of these: one read, and no search through the file."""
LOCK_PAUSE: Final = 0.001

log = structlog.stdlib.get_logger("kronos_api.ratelimit")

_Slot = tuple[int, int, int]  # offset in the file, end of its window, total


class HostStore:
    """Counts in a file of `folder`; by default in memory where the system offers that."""

    kind: Literal["redis", "host"] = "host"

    def __init__(self, folder: Path | None = None) -> None:
        self.path = (folder or default_folder()) / f"kronos-rate-limit-{LAYOUT}-{os.getuid()}"
        self._file = -1
        self._size = 0

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
        key = self._key()
        taken: set[int] = set()
        slots = []
        for tally in tallies:
            quota = tally.quota
            window = quota.window(now)
            digest = blake2b(quota.key(caller).encode(), digest_size=16, key=key).digest()
            offset, end, total = self._slot(digest, quota.end(window), now, taken)
            taken.add(offset)
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

    def _key(self) -> bytes:
        """The key of this file's hash; made by the first that counts in the file."""
        key = os.pread(self._file, KEY_BYTES, 0)
        if not any(key):
            key = os.urandom(KEY_BYTES)
            os.pwrite(self._file, key, 0)
        return key

    def _slot(self, digest: bytes, end: int, now: float, taken: Collection[int]) -> _Slot:
        """The slot of `digest` in the window that ends at `end`, none of those `taken`.

        A new digest takes the slot whose window ended first. If none has ended, the count whose
        window ends first is lost, and the loss is counted.
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
            raise StoreOut("a caller has more quotas than a bucket has slots")
        if oldest[0] > now:
            metrics.rate_limit_evictions.inc()
        return oldest[1], end, 0

    def _locked(self) -> bool:
        """Whether the lock is ours now; what is wrong with the file is `StoreOut`."""
        with self._told():
            if self._file < 0:
                self._open()
            else:
                self._mend()
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

    def _mend(self) -> None:
        """Open the file again if something removed or cut it: new workers open the one by name."""
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
                raise StoreOut("it is not a file of ours")
            if found.st_size != file_bytes():
                os.ftruncate(file, file_bytes())
        except BaseException:
            os.close(file)
            raise
        self._file, self._size = file, os.fstat(file).st_size

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreOut((error.strerror or str(error)).lower()) from None


def file_bytes() -> int:
    """Size of the file."""
    return HEADER_BYTES + BUCKETS * BUCKET_BYTES


def default_folder() -> Path:
    """Memory that all processes of the host share; a folder for temporary files elsewhere."""
    memory = Path("/dev/shm")
    return memory if os.access(memory, os.W_OK) else Path(tempfile.gettempdir())
