"""The page on metrics lists what there is, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client import Counter, Gauge, Histogram

from kronos_api.telemetry import metrics
from kronos_api.telemetry.slots import Slots

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
KINDS = {Counter: "counter", Gauge: "gauge", Histogram: "histogram"}

Row = tuple[str, str]


def documented() -> dict[Row, list[str]]:
    """Name and kind of each, with its labels."""
    rows = re.findall(r"^\| `(kronos_\w+)` \| (\w+) \| (.*?) \|", PAGE.read_text("utf-8"), re.M)
    return {(name, kind): re.findall(r"`(\w+)`", labels) for name, kind, labels in rows}


def defined(folder: Path) -> dict[Row, list[str]]:
    found: dict[Row, list[str]] = {}
    for metric in vars(metrics).values():
        if isinstance(metric, Counter | Gauge | Histogram):
            (described,) = metric.describe()
            suffix = "_total" if isinstance(metric, Counter) else ""
            found[described.name + suffix, KINDS[type(metric)]] = list(metric._labelnames)
    for family in metrics.Folder(Slots(folder)).collect():
        (sample,) = family.samples
        found[sample.name, family.type] = []
    return found


def test_the_page_lists_every_metric_with_its_labels(tmp_path: Path) -> None:
    assert documented() == defined(tmp_path)
