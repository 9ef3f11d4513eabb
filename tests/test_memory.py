"""Memory that a process may use, returns to the system, and keeps for compiled kernels."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch

from kronos_api.engine.linear import OneDNNLinear, pack_linear
from kronos_api.memory import (
    PRIMITIVES,
    bound_primitive_caches,
    return_freed_memory,
    usable_memory,
)

VARIABLES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")
GROWTH = """
import ctypes, torch
from kronos_api.engine.linear import pack_linear
from kronos_api.memory import PRIMITIVES

class Use(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "abcdefg"] + [("used", ctypes.c_size_t)] + [
        (name, ctypes.c_size_t) for name in "ij"
    ]

library = ctypes.CDLL(None)
library.mallinfo2.restype = Use
torch.set_num_threads(1)
with torch.inference_mode():
    linear, x = pack_linear(torch.randn(64, 64)), torch.randn(3 * PRIMITIVES, 64)
    used = []
    for rows in range(1, len(x)):
        linear(x[:rows])
        used.append(library.mallinfo2().used / 2**20)
print(used[PRIMITIVES + 8] - used[0], used[-1] - used[PRIMITIVES + 8])
"""
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


@pytest.mark.skipif(not hasattr(os, "confstr"), reason="asks the GNU C library")
def test_new_numbers_of_rows_take_no_more_memory_once_the_caches_are_full() -> None:
    if not isinstance(pack_linear(torch.eye(4)), OneDNNLinear):
        pytest.skip("PyTorch has no oneDNN here")
    env = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    run = subprocess.run([sys.executable, "-c", GROWTH], env=env, capture_output=True, text=True)
    if "mallinfo2" in run.stderr:
        pytest.skip("needs glibc 2.33")
    assert run.returncode == 0, run.stderr
    filling, later = map(float, run.stdout.split())
    assert later < max(2, filling / 10), (filling, later)


def test_capacity_of_the_environment_takes_precedence(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(VARIABLES[0], "7")
    bound_primitive_caches()
    assert [os.environ[name] for name in VARIABLES] == ["7", str(PRIMITIVES)]
