"""The memory that a process may use, from files as the kernel writes them, and returning it."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from kronos_api.memory import return_freed_memory, usable_memory

MACHINE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        pytest.param("memory.max", "268435456\n", 1 << 28, id="version 2"),
        pytest.param("memory.max", "max\n", MACHINE, id="version 2 without a limit"),
        pytest.param("memory/memory.limit_in_bytes", "268435456\n", 1 << 28, id="version 1"),
        pytest.param(
            "memory/memory.limit_in_bytes", "9223372036854771712\n", MACHINE, id="version 1, none"
        ),
        pytest.param("other", "", MACHINE, id="no cgroup"),
    ],
)
def test_least_of_machine_and_cgroup_counts(
    tmp_path: Path, name: str, content: str, expected: int
) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(content)
    assert usable_memory(tmp_path) == expected


def test_freed_memory_returns_to_the_system() -> None:
    process = psutil.Process()
    blocks = [bytearray(60_000) for _ in range(2000)]  # 120 MB below the threshold of mmap
    kept = blocks[::100]
    before = process.memory_info().rss
    del blocks
    return_freed_memory()
    assert process.memory_info().rss < before - (60 << 20)
    assert len(kept) == 20
