"""The values of all workers, read from their files and combined.

The rules are those of prometheus_client's `MultiProcessCollector` for counters, histograms and
gauges of the modes `livesum` and `livemax`, the only ones here. It spends most of a scrape on
keys that it has parsed before. Here the layout of each file is kept, and its values are unpacked at
once as long as its keys are the same.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

_LENGTH: Final = struct.Struct("i")
_FIRST_ENTRY: Final = 8
"""Offset of the first entry; before it is the number of bytes in use, with these."""
_ENTRY: Final = "i{}sdd"
"""Length of the key, the key padded to whole words, the value, a time."""


@dataclass(frozen=True, slots=True, eq=False)
class _Series:
    """What a key of the files names: one value of one child of a family."""

    family: str
    help: str
    name: str
    labels: dict[str, str]
    child: tuple[tuple[str, str], ...]
    """The labels of its child: all but `le`."""
    bound: float | None
    """The upper bound of a bucket."""


@dataclass(frozen=True, slots=True)
class _Layout:
    """The keys of a file, and where their values are."""

    used: int
    entries: struct.Struct
    lengths: Sequence[int]
    keys: Sequence[bytes]
    series: Sequence[_Series]

    def values(self, data: bytes) -> Sequence[float] | None:
        """The values in `data`; None if its keys are others."""
        if _used(data) != self.used:
            return None
        if not self.keys:
            return ()
        fields = self.entries.unpack_from(data, _FIRST_ENTRY)
        same = fields[0::4] == self.lengths and fields[1::4] == self.keys
        return fields[2::4] if same else None


class WorkerValues(Collector):
    """The metrics in the files of `directory`. One object serves all scrapes, in any thread."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._layouts: dict[str, _Layout] = {}
        self._series: dict[bytes, _Series] = {}
        self._canonical: dict[tuple[object, ...], _Series] = {}

    def collect(self) -> Iterator[Metric]:
        """All families; raises OSError or ValueError while files are removed or replaced."""
        totals: dict[str, dict[_Series, float]] = {}
        layouts = {}
        for path in self._directory.glob("*.db"):
            kind = path.stem.rpartition("_")[0]
            try:
                data = path.read_bytes()
            except FileNotFoundError:
                if kind.startswith("gauge_live"):  # its process has ended since the glob
                    continue
                raise
            layout = self._layouts.get(path.name)
            values = None if layout is None else layout.values(data)
            if layout is None or values is None:
                layout = self._read_layout(data)
                values = layout.values(data) or ()
            layouts[path.name] = layout
            total = totals.setdefault(kind, {})
            if kind == "gauge_livemax":
                for series, value in zip(layout.series, values, strict=True):
                    total[series] = max(total.get(series, value), value)
            else:
                for series, value in zip(layout.series, values, strict=True):
                    total[series] = total.get(series, 0.0) + value
        self._layouts = layouts
        for kind, total in totals.items():
            yield from _histograms(total) if kind == "histogram" else _plain(kind, total)

    def _read_layout(self, data: bytes) -> _Layout:
        used = _used(data)
        lengths, keys, series, formats = [], [], [], []
        at = _FIRST_ENTRY
        while at < used:
            (length,) = _LENGTH.unpack_from(data, at)
            padded = length + 8 - (length + _LENGTH.size) % 8
            at += _LENGTH.size
            if not 0 < length <= used - at:
                raise ValueError("a file of metrics has an entry beyond its end")
            key = data[at : at + padded]
            lengths.append(length)
            keys.append(key)
            series.append(self._of(key[:length]))
            formats.append(_ENTRY.format(padded))
            at += padded + 16
        entries = struct.Struct("".join(formats))
        return _Layout(used, entries, tuple(lengths), tuple(keys), tuple(series))

    def _of(self, key: bytes) -> _Series:
        known = self._series.get(key)
        if known is None:
            family, name, labels, text = json.loads(key)
            bound = labels.get("le")
            child = tuple(sorted((one, value) for one, value in labels.items() if one != "le"))
            new = _Series(
                family, text, name, labels, child, None if bound is None else float(bound)
            )
            # Keys of two versions differ where a help text does; the series is the same.
            same = (family, name, tuple(sorted(labels.items())))
            known = self._series.setdefault(key, self._canonical.setdefault(same, new))
        return known


def _used(data: bytes) -> int:
    """The bytes in use of a file; 0 before its process has mapped it."""
    used: int = _LENGTH.unpack_from(data)[0] if data else 0
    if used > len(data):
        raise ValueError("a file of metrics is shorter than it says")
    return used


def _plain(kind: str, totals: dict[_Series, float]) -> Iterator[Metric]:
    """The families of counters or gauges."""
    families: dict[str, Metric] = {}
    for series, value in totals.items():
        family = families.get(series.family)
        if family is None:
            family = Metric(series.family, series.help, kind.partition("_")[0])
            families[series.family] = family
        family.samples.append(Sample(series.name, series.labels, value))
    yield from families.values()


def _histograms(totals: dict[_Series, float]) -> Iterator[Metric]:
    """The families of histograms, in which a bucket counts those below it as well."""
    families: dict[str, Metric] = {}
    children: dict[tuple[str, tuple[tuple[str, str], ...]], list[tuple[_Series, float]]] = {}
    for series, value in totals.items():
        children.setdefault((series.family, series.child), []).append((series, value))
    for (name, child), values in children.items():
        family = families.get(name)
        if family is None:
            family = families[name] = Metric(name, values[0][0].help, "histogram")
        add, below = family.samples.append, 0.0
        buckets = []
        for series, value in values:
            if series.bound is None:
                add(Sample(series.name, series.labels, value))
            else:
                buckets.append((series.bound, series, value))
        for _, series, value in sorted(buckets, key=lambda bucket: bucket[0]):
            below += value
            add(Sample(series.name, series.labels, below))
        if buckets:
            add(Sample(f"{name}_count", dict(child), below))
    yield from families.values()
