"""The log writer: lines stay whole and in order, and a reader that stalls stops nothing."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from kronos_api.telemetry.log_writer import LogWriter

PATIENCE = 60.0


class Pipe:
    """A pipe as a stream; `read` takes all lines up to `last`."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()

    def fileno(self) -> int:
        return self.writer

    def read(self, last: str) -> list[str]:
        taken = b""
        while not taken.endswith(f"{last}\n".encode()):
            taken += os.read(self.reader, 65536)
        return taken.decode().splitlines()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    for end in (pipe.reader, pipe.writer):
        try:
            os.close(end)
        except OSError as error:
            if error.errno != errno.EBADF:
                raise


def lost(lines: int) -> str:
    return f"lost {lines}"


def test_lines_are_whole_and_in_order(pipe: Pipe) -> None:
    writer = LogWriter(pipe, lost)
    lines = [f"{number} " + "x" * (number * 37 % 9000) for number in range(300)]
    for line in lines:
        writer.put(line)
    assert pipe.read(lines[-1]) == lines
    assert writer.flush(PATIENCE)
    assert writer.take_dropped() == 0


def test_stalled_reader_drops_lines_and_blocks_no_caller(pipe: Pipe) -> None:
    writer = LogWriter(pipe, lost, max_lines=5)
    line = "x" * 100_000  # more than a pipe holds: the writer waits in the middle of the first
    for _ in range(20):
        writer.put(line)
    assert not writer.flush(0)  # bounded, although nothing is written
    dropped = writer.take_dropped()
    assert 20 - 5 - 1 <= dropped <= 20 - 5
    assert writer.take_dropped() == 0
    reader = threading.Thread(target=lambda: read.extend(pipe.read("end")))
    read: list[str] = []
    reader.start()
    assert writer.flush(PATIENCE)
    writer.put("end")
    reader.join(PATIENCE)
    assert read[-1] == "end"
    assert read.count(line) == 20 - dropped
    assert [one for one in read if one != line] == [lost(dropped), "end"]


def test_lines_to_a_closed_pipe_are_counted_and_nothing_is_printed(
    pipe: Pipe, capfd: pytest.CaptureFixture[str]
) -> None:
    writer = LogWriter(pipe, lost)
    os.close(pipe.reader)
    for _ in range(3):
        writer.put("line")
    assert writer.flush(PATIENCE)
    assert writer.take_dropped() == 3
    os.close(pipe.writer)
    writer.put("line")
    assert writer.flush(PATIENCE)
    assert writer.take_dropped() == 1
    assert capfd.readouterr() == ("", "")


def test_a_full_disk_tears_no_later_line(pipe: Pipe) -> None:
    room = [6]

    def write(descriptor: int, rest: memoryview) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = os.write(descriptor, rest[: room[0]])
        room[0] -= taken
        return taken

    writer = LogWriter(pipe, lost, write=write)
    for line in ("abc", "defgh", "ijk"):
        writer.put(line)
    assert writer.flush(PATIENCE)
    assert writer.take_dropped() == 2
    room[0] = 1000
    writer.put("lmn")
    assert pipe.read("lmn") == ["abc", "de", "lost 2", "lmn"]


def test_non_blocking_pipe_is_waited_for(pipe: Pipe) -> None:
    os.set_blocking(pipe.writer, False)
    writer = LogWriter(pipe, lost)
    writer.put("x" * 200_000)
    writer.put("end")
    assert pipe.read("end") == ["x" * 200_000, "end"]
    assert writer.take_dropped() == 0


def test_a_forked_process_writes_its_own_lines_only() -> None:
    script = """
import os, sys
from kronos_api.telemetry.log_writer import LogWriter
writer = LogWriter(sys.stdout, str)
writer.put("first")
writer.flush(60)
stall, release = os.pipe()
slow = LogWriter(sys.stdout, str, write=lambda fd, rest: os.read(stall, 1) and os.write(fd, rest))
slow.put("parent")
if os.fork() == 0:
    slow.put("child") or writer.put("child's own")
    os.write(release, b"..")
    assert writer.flush(60) and slow.flush(60)
    os._exit(0)
assert os.wait()[1] == 0
os.write(release, b".")
assert slow.flush(60)
"""
    written = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert sorted(written) == ["child", "child's own", "first", "parent"]
