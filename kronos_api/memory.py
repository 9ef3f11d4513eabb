"""Memory that this process may use: the machine's, or the limit of its cgroup.

And memory that libraries keep for later: the C library's freed blocks, oneDNN's kernels.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from pathlib import Path

from kronos_api.cores import CGROUP

PRIMITIVES = 128
"""Kernels of oneDNN that are kept: those of some sixteen sizes of a batch or prompt."""


def bound_primitive_caches() -> None:
    """Bound the memory of the kernels that oneDNN compiles for each shape of a GEMM.

    Every number of rows needs kernels of its own, half a megabyte each, and oneDNN and PyTorch's
    wrapper of it keep 1,024 each: a worker grew by several hundred megabytes as forecasts of new
    lengths arrived. Both read their variable when they first compile; one that is set in the
    environment takes precedence.
    """
    for variable in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(variable, str(PRIMITIVES))


def usable_memory(cgroup: Path = CGROUP) -> int:
    """Bytes of the machine's memory or of the cgroup's limit (version 2 or 1), the less."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            limit = (cgroup / name).read_text().strip()
        except OSError:
            continue
        # "max" is no limit; version 1 has a number above any machine's memory instead.
        return min(machine, int(limit)) if limit.isdecimal() else machine
    return machine


def return_freed_memory() -> None:
    """Return to the system what was freed, where the C library can: glibc.

    After loading, most of it is weights that have been packed.
    """
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
