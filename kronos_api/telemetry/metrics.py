"""Every metric of the service, in Prometheus' terms.

Values are kept in this process until the composition root calls `metrics.share`: from then on they
are kept in files, so that any worker can report what all of them have counted. All metrics can be
combined over workers: counters and histograms are summed, of gauges the sum or the maximum is
reported. The `container` label is never taken from a request's headers; callers that are not known
by name are "other".
"""

from __future__ import annotations

import os
from typing import Final

import structlog
from prometheus_client import (
    CollectorRegistry,
    ProcessCollector,
    disable_created_metrics,
    values,
)

from kronos_api.errors import InternalError, StartupError
from kronos_api.telemetry.catalog import Catalog
from kronos_api.telemetry.container_memory import ContainerMemory
from kronos_api.telemetry.definitions import create
from kronos_api.telemetry.directory import DirectoryUsage
from kronos_api.telemetry.previous_names import WithPreviousNames
from kronos_api.telemetry.slots import Slots
from kronos_api.telemetry.text_format import text
from kronos_api.telemetry.worker_values import WorkerValues

log = structlog.stdlib.get_logger(__name__)

OTHER: Final = "other"
"""The `container` label of a caller that is not known by name."""


class Metrics(Catalog):
    """The metrics of one process. There is one such object a process: `metrics`."""

    def __init__(self) -> None:
        self._slots: Slots | None = None
        self._lost = False
        self._create(values.MutexValue)
        ProcessCollector(registry=self.registry)
        self.registry.register(ContainerMemory())

    def share(self, slots: Slots) -> None:
        """Keep the values in files from here on, in this process and in those it forks.

        What was counted before is dropped: call it before anything is counted. Raises
        `StartupError` if the files cannot be made.
        """
        self._slots = slots
        # The one way to tell prometheus_client the directory; it is read when files are opened.
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(slots.directory)
        self._create(values.MultiProcessValue(slots.own))  # type: ignore[no-untyped-call]
        self._exposed = CollectorRegistry()
        for collector in (WorkerValues(slots.directory), DirectoryUsage(slots), ContainerMemory()):
            self._exposed.register(collector)

    def _create(self, value_class: type) -> None:
        # A creation time beside each counter would double the number of series.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        values.ValueClass = value_class
        self.registry = CollectorRegistry()
        create(self, self.registry)
        self._exposed = self.registry

    def restore_files(self) -> None:
        """Make the files of this process again if they were removed; log that, or the failure.

        To be called often: it costs a few calls of stat.
        """
        if self._slots is None:
            return
        try:
            restored = self._slots.restore(force=self._lost)
            if restored:
                # Mapped here, not at the next count: the directory could be lost again by then.
                self.worker_deaths.inc(0)
        except (StartupError, OSError) as error:
            if not self._lost:
                log.error("metrics_directory_lost", reason=str(error))
            self._lost = True
            return
        self._lost = False
        if restored:
            log.warning("metrics_directory_restored", directory=str(self._slots.directory))

    def drop_dead_gauges(self) -> None:
        """Drop the gauges of processes that have ended; their counters stay."""
        if self._slots is not None:
            self._slots.drop_dead_gauges()

    def render(self) -> bytes:
        """All metrics of all workers in Prometheus' text format.

        Raises `InternalError` if the directory was removed and cannot be made again.
        """
        if self._slots is None:
            return text(WithPreviousNames(self._exposed).collect())
        try:
            return self._render_all(self._slots)
        except (OSError, ValueError):  # files are removed or renamed at this moment
            self.restore_files()
        try:
            return self._render_all(self._slots)
        except (OSError, ValueError) as error:
            log.error("metrics_not_readable", reason=str(error))
            raise InternalError() from None

    def _render_all(self, slots: Slots) -> bytes:
        self.restore_files()
        slots.drop_dead_gauges()
        return text(WithPreviousNames(self._exposed).collect())


metrics: Final = Metrics()
"""What every module counts in."""
