"""Memory of the container against its limit, read at each scrape."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psutil
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

CGROUP: Final = Path("/sys/fs/cgroup")
UNLIMITED: Final = 2**60
"""cgroup v1 reports a number above this where there is no limit."""


class ContainerMemory(Collector):
    """What the control group of this process uses, and what it is allowed.

    Without a limit, both are the machine's. File pages that the kernel can drop at once do not
    count as used, as in `docker stats`. Both versions of control groups are read.
    """

    def __init__(self, root: Path = CGROUP) -> None:
        self._root = root

    def collect(self) -> Iterator[Metric]:
        """Sizes in bytes."""
        used, limit = self._of_cgroup() or _of_machine()
        yield GaugeMetricFamily(
            "kronos_memory_used_bytes",
            "Memory of the container, or of the machine where the container has no limit.",
            used,
        )
        yield GaugeMetricFamily(
            "kronos_memory_limit_bytes",
            "Memory that the container is allowed, or that the machine has.",
            limit,
        )

    def _of_cgroup(self) -> tuple[int, int] | None:
        """Used and allowed bytes; None where no limit is set or can be read."""
        first = self._root / "memory"
        return self._read(
            self._root, "memory.max", "memory.current", "inactive_file"
        ) or self._read(
            first, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
        )

    def _read(self, folder: Path, limit: str, used: str, inactive: str) -> tuple[int, int] | None:
        try:
            allowed = int((folder / limit).read_text())
            current = int((folder / used).read_text())
            statistics = (folder / "memory.stat").read_text().split()
            droppable = int(statistics[statistics.index(inactive) + 1])
        except (OSError, ValueError):  # no such file; "max": no limit
            return None
        return (max(0, current - droppable), allowed) if allowed < UNLIMITED else None


def _of_machine() -> tuple[int, int]:
    memory = psutil.virtual_memory()
    return memory.total - memory.available, memory.total
