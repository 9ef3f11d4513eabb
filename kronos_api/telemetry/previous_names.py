"""Metrics under the names and labels that they had before, for one release beside the new ones.

An entry is removed when the release after the one that renamed it is made.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, Protocol

from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

PREVIOUS_NAMES: Final = {
    "kronos_candles_decoded": "kronos_tokens_decoded",
    "kronos_rate_limit_degraded": "kronos_rate_limit_alone",
    "kronos_metrics_directory_bytes": "kronos_metrics_folder_bytes",
}
PREVIOUS_LABELS: Final = {"kronos_slow_callers": ("deadline", "waited_for")}
"""By metric: the label, and the one beside it that has its previous values."""
PREVIOUS_VALUES: Final = {"headers": "head", "send": "answer"}


class Families(Protocol):
    """A registry, as far as a collector needs it."""

    def collect(self) -> Iterable[Metric]:
        """All metric families with their samples."""
        ...


class WithPreviousNames(Collector):
    """The families of `registry`, and those that were renamed under their previous names too."""

    def __init__(self, registry: Families) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        """Each family, followed by its copy under the previous name."""
        for family in self._registry.collect():
            if labels := PREVIOUS_LABELS.get(family.name):
                family.samples = [_relabelled(sample, *labels) for sample in family.samples]
            yield family
            if name := PREVIOUS_NAMES.get(family.name):
                yield _renamed(family, name)


def previous_value(value: str) -> str:
    """What a label's `value` was called before."""
    return PREVIOUS_VALUES.get(value, value)


def _relabelled(sample: Sample, label: str, previous: str) -> Sample:
    labels = {**sample.labels, previous: previous_value(sample.labels[label])}
    return sample._replace(labels=labels)


def _renamed(family: Metric, name: str) -> Metric:
    copy = Metric(name, f"Deprecated: use {family.name}.", family.type, family.unit)
    copy.samples = [
        sample._replace(name=name + sample.name.removeprefix(family.name))
        for sample in family.samples
    ]
    return copy
