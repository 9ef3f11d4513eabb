"""The count of one host: exact over processes, whatever becomes of one of them."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from hashlib import blake2b
from ipaddress import ip_network
from pathlib import Path

import pytest
import structlog

from kronos_api.errors import StartupError
from kronos_api.ratelimit import host_store
from kronos_api.ratelimit.host_store import BUCKET_BYTES, BUCKETS, HostStore, default_folder
from kronos_api.ratelimit.limiter import Limiter
from kronos_api.ratelimit.quotas import Quota, Quotas, parse_routes
from kronos_api.ratelimit.store import StoreUnavailable, WindowCounter
from kronos_api.telemetry.metrics import metrics
from tests.processes import ROOT
from tests.web import until

DAY = Quota("all", 100, 86_400)

WORKER = """
import asyncio, sys
from pathlib import Path
from kronos_api.ratelimit.host_store import HostStore
from kronos_api.ratelimit.quotas import Quota
from kronos_api.ratelimit.store import StoreUnavailable, WindowCounter

async def main():
    store, quota = HostStore(Path(sys.argv[1])), Quota("all", int(sys.argv[2]), 86_400)
    await store.open()
    print("open", flush=True)
    passed = 0
    for _ in range(int(sys.argv[3])):
        passed += (await store.count("web", [WindowCounter(quota)], 1))[0]
        if sys.argv[4:]:
            print(passed, flush=True)
    print(passed, flush=True)

asyncio.run(main())
"""


def worker(folder: Path, limit: int, calls: int, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WORKER, str(folder), str(limit), str(calls), *more]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


async def calls(store: HostStore, number: int, caller: str = "web", *quotas: Quota) -> list[bool]:
    counters = [WindowCounter(quota) for quota in quotas or (DAY,)]
    return [(await store.count(caller, counters, 1))[0] for _ in range(number)]


def failures() -> float:
    """Calls that a store did not count in time."""
    return metrics.registry.get_sample_value("kronos_rate_limit_store_failures_total") or 0


def evictions() -> float:
    """Counts that were lost to make room."""
    return metrics.registry.get_sample_value("kronos_rate_limit_evictions_total") or 0


async def test_callers_and_quotas_are_counted_apart(tmp_path: Path) -> None:
    store = HostStore(tmp_path)
    small = Quota("batch", 3, 86_400)
    assert sum(await calls(store, 5, "web", DAY, small)) == 3
    assert sum(await calls(store, 101)) == 97  # what one quota refused, no other has counted
    assert sum(await calls(store, 101, "other")) == 100
    await store.close()


async def test_refused_cost_is_not_counted(tmp_path: Path) -> None:
    store = HostStore(tmp_path)
    assert (await store.count("web", [WindowCounter(DAY)], 99))[0]
    assert not (await store.count("web", [WindowCounter(DAY)], 2))[0]
    allowed, (reading,) = await store.count("web", [WindowCounter(DAY)], 1)
    assert (allowed, reading.total) == (True, 100)
    assert 0 < reading.left <= 86_400
    await store.close()


async def test_new_window_starts_at_zero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = HostStore(tmp_path)
    quota = Quota("all", 2, 60)
    for now in (59.0, 61.0, 119.0, 120.0):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        passed = sum(await calls(store, 3, "web", quota))
        assert passed == (0 if now == 119 else 2)
    await store.close()


async def test_returned_forecasts_can_be_granted_again(tmp_path: Path) -> None:
    """By any worker, in the window in which it was granted."""
    quotas = Quotas(10**6, parse_routes("single=3/day"))
    first, second = (Limiter(quotas, HostStore(tmp_path)) for _ in range(2))
    for limiter in (first, second):
        await limiter.start()
    granted = [await first.take("web", "single") for _ in range(3)]
    assert not (await second.take("web", "single")).allowed
    assert (await first.give_back("web", "single", 1, granted[0])).remaining == 1
    assert (await second.take("web", "single")).allowed
    assert not (await first.take("web", "single")).allowed
    for limiter in (first, second):
        await limiter.stop()


async def test_forecasts_of_an_ended_window_are_not_returned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limiter = Limiter(Quotas(3, {}), HostStore(tmp_path))
    await limiter.start()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    granted = await limiter.take("web", "single", 2)
    now += 60
    assert (await limiter.take("web", "single", 2)).remaining == 1
    assert (await limiter.give_back("web", "single", 2, granted)).remaining == 1
    await limiter.stop()


@pytest.mark.process
def test_processes_share_one_count(tmp_path: Path) -> None:
    workers = [worker(tmp_path, 1000, 400) for _ in range(4)]
    outputs = [process.communicate(timeout=60)[0] for process in workers]
    assert sum(int(output.split()[-1]) for output in outputs) == 1000


@pytest.mark.process
def test_worker_can_be_killed_at_any_point(tmp_path: Path) -> None:
    """Its grants stay counted; no worker waits for its lock."""
    granted = 0
    for reported_calls in (1, 57, 203):
        with worker(tmp_path, 2000, 10**6, "report") as process:
            assert process.stdout is not None
            for _ in range(reported_calls + 1):
                process.stdout.readline()
            process.kill()
            lines = process.stdout.read().splitlines()
        granted += max(reported_calls, int(lines[-1]) if lines and lines[-1].isdecimal() else 0)
    with worker(tmp_path, 2000, 2001) as process:
        left = int(process.communicate(timeout=60)[0].split()[-1])
    # A call that was counted but not reported is lost: one for each killed worker.
    assert 2000 - granted - 3 <= left <= max(0, 2000 - granted)


@pytest.mark.process
async def test_stopped_worker_with_the_lock_does_not_block_others(tmp_path: Path) -> None:
    store = HostStore(tmp_path)
    # By the day: there is no minute that could end meanwhile.
    quotas = Quotas(10**6, {"single": (Quota("single", 10, 86_400),)})
    limiter = Limiter(quotas, store, workers=2)
    await limiter.start()
    script = (
        "import fcntl, sys, time; file = open(sys.argv[1], 'r+b');"
        "fcntl.flock(file, fcntl.LOCK_EX); print(1, flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", script, str(store.path)]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    with holder:
        holder.stdout.readline()
        holder.send_signal(signal.SIGSTOP)
        before = failures()
        verdicts = [await limiter.take("web", "single") for _ in range(10)]
        assert failures() == before + 1  # one call waited, not ten
        assert [verdict.allowed for verdict in verdicts] == [True] * 5 + [False] * 5
        assert limiter.degraded
        holder.kill()
    await until(lambda: not limiter.degraded, 60)
    await limiter.stop()


async def test_removed_file_is_restored(tmp_path: Path) -> None:
    store, other = HostStore(tmp_path), HostStore(tmp_path)
    assert sum(await calls(store, 10)) == 10
    store.path.unlink()
    assert sum(await calls(store, 60)) + sum(await calls(other, 60)) == 100
    await store.close()
    await other.close()


def colliding(number: int) -> list[str]:
    """Addresses that a hash without a key puts into one bucket."""
    found = []
    for address in ip_network("10.0.0.0/15"):
        digest = blake2b(DAY.key(str(address)).encode(), digest_size=16).digest()
        if int.from_bytes(digest[:4], "little") % BUCKETS == 0:
            found.append(str(address))
        if len(found) == number:
            break
    return found


async def test_addresses_cannot_be_computed_to_collide(tmp_path: Path) -> None:
    store, before = HostStore(tmp_path), evictions()
    callers = colliding(38)
    for caller in callers:
        assert await calls(store, 1, caller) == [True]
    assert evictions() == before
    for caller in callers:
        assert sum(await calls(store, 100, caller)) == 99
    await store.close()


async def test_workers_of_a_host_share_the_key_and_hosts_do_not(tmp_path: Path) -> None:
    keys = []
    for folder in (tmp_path, tmp_path, tmp_path / "other"):
        folder.mkdir(exist_ok=True)
        store = HostStore(folder)
        await calls(store, 1)
        keys.append(store.path.read_bytes()[: host_store.KEY_BYTES])
        await store.close()
    assert keys[0] == keys[1] != keys[2]
    assert any(keys[0])


async def test_full_bucket_evicts_the_count_that_ends_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_store, "BUCKETS", 1)
    store, before = HostStore(tmp_path), evictions()
    hour = Quota("hour", 100, 3600)
    monkeypatch.setattr(time, "time", lambda: 86_400.0)
    await calls(store, 5, "short", hour)
    for number in range(host_store.IN_BUCKET - 1):
        assert await calls(store, 1, str(number)) == [True]
    assert evictions() == before
    assert await calls(store, 1, "one more") == [True]
    assert evictions() == before + 1
    assert sum(await calls(store, 100, "0")) == 99
    assert sum(await calls(store, 101, "one more")) == 99
    await store.close()


async def test_slot_of_an_ended_window_is_reused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_store, "BUCKETS", 1)
    store, before = HostStore(tmp_path), evictions()
    monkeypatch.setattr(time, "time", lambda: 86_400.0)
    await calls(store, 1, "short", Quota("hour", 100, 3600))
    for number in range(host_store.IN_BUCKET - 1):
        await calls(store, 1, str(number))
    monkeypatch.setattr(time, "time", lambda: 86_400.0 + 3600)
    assert sum(await calls(store, 101, "one more")) == 100
    assert evictions() == before
    await store.close()


@pytest.mark.parametrize("mishap", ["file", "folder", "emptied", "cut"])
async def test_file_lost_in_service_is_restored_and_logged(tmp_path: Path, mishap: str) -> None:
    store = HostStore(tmp_path / "counts")
    store.path.parent.mkdir()
    assert sum(await calls(store, 10)) == 10
    match mishap:
        case "file":
            store.path.unlink()
        case "folder":
            shutil.rmtree(store.path.parent)
        case "emptied":
            os.truncate(store.path, 0)
        case "cut":
            os.truncate(store.path, 7)
    with structlog.testing.capture_logs() as lines:
        assert sum(await calls(store, 120)) == 100
    assert [line["event"] for line in lines] == ["rate_limit_file_restored"]
    await store.close()


async def test_quotas_of_one_caller_have_different_slots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even in one bucket and on their first call."""
    monkeypatch.setattr(host_store, "BUCKETS", 1)
    store = HostStore(tmp_path)
    small = Quota("batch", 100, 3600)
    assert await calls(store, 1, "web", DAY, small) == [True]
    _, readings = await store.count("web", [WindowCounter(DAY), WindowCounter(small)], 1)
    assert [reading.total for reading in readings] == [2, 2]
    await store.close()


async def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    store = HostStore(tmp_path)
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(StoreUnavailable, match="no space left"):
        await calls(store, 1)
    with store.path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the lock was let go
    await store.close()


def test_file_is_small_and_private(tmp_path: Path) -> None:
    store = HostStore(tmp_path)
    asyncio.run(store.open())
    found = store.path.stat()
    assert found.st_mode & 0o777 == 0o600
    assert found.st_size == host_store.HEADER_BYTES + BUCKETS * BUCKET_BYTES < 2**20 + 4096
    asyncio.run(store.close())


@pytest.mark.parametrize("kind", ["missing", "link", "folder"])
def test_unusable_folder_is_one_line(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "missing" if kind == "missing" else tmp_path
    store = HostStore(folder)
    if kind == "link":
        store.path.symlink_to(tmp_path / "elsewhere")
    if kind == "folder":
        store.path.mkdir()
    with pytest.raises(StartupError, match=r"^the rate limit cannot be kept in [^\n]+$"):
        asyncio.run(store.open())


def test_file_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = HostStore(tmp_path)
    store.path.touch()
    monkeypatch.setattr(os, "getuid", lambda: 4242)
    with pytest.raises(StartupError, match="not a file of this user"):
        asyncio.run(store.open())


def test_default_file_is_in_memory() -> None:
    assert host_store.default_folder is not default_folder  # each test has a folder of its own
    assert default_folder().is_dir()
    assert str(default_folder()) == "/dev/shm" or not os.access("/dev/shm", os.W_OK)
