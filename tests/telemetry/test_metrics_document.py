"""The page on metrics lists every metric, and no other, and has a query for each."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client import Counter, Gauge, Histogram

from kronos_api.telemetry.container_memory import ContainerMemory
from kronos_api.telemetry.directory import DirectoryUsage
from kronos_api.telemetry.metrics import metrics
from kronos_api.telemetry.previous_names import PREVIOUS_LABELS, PREVIOUS_NAMES
from kronos_api.telemetry.slots import Slots

PAGE = Path(__file__).parents[2] / "docs" / "monitoring.md"
KINDS = {Counter: "counter", Gauge: "gauge", Histogram: "histogram"}

Row = tuple[str, str]


def documented() -> dict[Row, list[str]]:
    """Name and kind of each, with its labels."""
    rows = re.findall(r"^\| `(kronos_\w+)` \| (\w+) \|(.*?)\|", PAGE.read_text("utf-8"), re.M)
    return {(name, kind): re.findall(r"`(\w+)`", labels) for name, kind, labels in rows}


def queries() -> list[str]:
    """The PromQL queries of the page."""
    blocks = re.findall(r"^```promql\n(.*?)^```$", PAGE.read_text("utf-8"), re.M | re.S)
    parts = [part for block in blocks for part in re.split(r"\n\s*\n", block)]
    return [re.sub(r"^#.*$", "", part, flags=re.M).strip() for part in parts]


def defined(directory: Path) -> dict[Row, list[str]]:
    found: dict[Row, list[str]] = {}
    for metric in vars(metrics).values():
        if isinstance(metric, Counter | Gauge | Histogram):
            (described,) = metric.describe()
            suffix = "_total" if isinstance(metric, Counter) else ""
            labels = [*metric._labelnames, *PREVIOUS_LABELS.get(described.name, ())[1:]]
            found[described.name + suffix, KINDS[type(metric)]] = labels
    for collector in (DirectoryUsage(Slots(directory)), ContainerMemory()):
        for family in collector.collect():
            (sample,) = family.samples
            found[sample.name, family.type] = []
    for name, kind in list(found):
        if previous := PREVIOUS_NAMES.get(name.removesuffix("_total")):
            suffix = "_total" if kind == "counter" else ""
            found[previous + suffix, kind] = found[name, kind]
    return found


def test_page_lists_every_metric_with_its_labels(tmp_path: Path) -> None:
    assert documented() == defined(tmp_path)


def test_page_has_a_query_for_every_metric() -> None:
    queried = {
        re.sub(r"_(bucket|sum|count)$", "", name)
        for query in queries()
        for name in re.findall(r"kronos_\w+", query)
    }
    renamed = set(PREVIOUS_NAMES.values())
    names = {name for name, _ in documented() if name.removesuffix("_total") not in renamed}
    assert queried == names
