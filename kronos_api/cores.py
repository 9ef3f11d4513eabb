"""Cores that this process may use, and how OpenMP uses them.

A container sees all cores of its host, even if its CPU limit allows two. Threads beyond the limit
only wait for each other.
"""

from __future__ import annotations

import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def usable_cores(cgroup: Path = CGROUP) -> int:
    """Cores by affinity and by the cgroup's CPU limit (version 2 or 1), at least 1.

    A fraction of a core is rounded down: two threads on a limit of 1.5 cores would be stopped in
    the middle of a matmul for a third of the time.
    """
    limit = _limit(cgroup)
    cores = _affinity()
    return cores if limit is None else max(1, min(cores, int(limit)))


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _limit(cgroup: Path) -> float | None:
    """Cores that the quota allows, or None without one."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if not quota.isdecimal() or not period.isdecimal() or int(period) == 0:
        return None  # "max", or -1: no limit
    return int(quota) / int(period)


def bound_spinning() -> None:
    """Bound how long OpenMP threads spin while they wait for each other.

    Threads that spin for long make a forecast many times slower as soon as other processes need
    their cores; threads that never spin make it half as fast on an idle machine. OpenMP reads
    GOMP_SPINCOUNT when torch is first imported. An OMP_WAIT_POLICY or GOMP_SPINCOUNT of the
    environment takes precedence.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
