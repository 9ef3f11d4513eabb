"""Metrics that can be combined over processes, and their previous names."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.parser import text_string_to_metric_families

from kronos_api.telemetry.metrics import metrics
from kronos_api.telemetry.previous_names import WithPreviousNames
from tests.telemetry.counting import ROOT

OURS = [one for one in vars(metrics).values() if isinstance(one, Counter | Gauge | Histogram)]


def test_only_kinds_that_can_be_combined_are_used() -> None:
    families = [family for metric in OURS for family in metric.describe()]
    assert len(families) == len(OURS)
    assert {family.type for family in families} == {"counter", "gauge", "histogram"}


def test_gauges_of_dead_processes_do_not_count() -> None:
    gauges = [one for one in OURS if isinstance(one, Gauge)]
    assert gauges
    assert all(gauge._multiprocess_mode.startswith("live") for gauge in gauges)


def test_buckets_reach_from_5_ms_to_a_minute() -> None:
    metrics.request_duration.labels("/buckets").observe(1)
    text = metrics.render().decode()
    (family,) = (
        family
        for family in text_string_to_metric_families(text)
        if family.name == "kronos_request_duration_seconds"
    )
    bounds = [
        float(sample.labels["le"])
        for sample in family.samples
        if sample.labels["route"] == "/buckets" and "le" in sample.labels
    ]
    assert (bounds[0], bounds[-2], bounds[-1]) == (0.005, 60.0, float("inf"))
    assert 2.0 in bounds  # the target of the 95th percentile


def test_renamed_metric_is_exposed_under_both_names() -> None:
    registry = CollectorRegistry()
    Gauge("kronos_rate_limit_degraded", "Workers.", registry=registry).set(2)
    new, previous = WithPreviousNames(registry).collect()
    assert (new.name, previous.name) == ("kronos_rate_limit_degraded", "kronos_rate_limit_alone")
    assert (new.samples[0].value, previous.samples[0].value) == (2, 2)
    assert previous.samples[0].name == "kronos_rate_limit_alone"


def test_renamed_label_is_exposed_beside_the_new_one_without_counting_twice() -> None:
    registry = CollectorRegistry()
    slow = Counter("kronos_slow_callers", "Connections.", ["deadline"], registry=registry)
    slow.labels("headers").inc()
    slow.labels("body").inc(2)
    (family,) = WithPreviousNames(registry).collect()
    assert [(one.labels, one.value) for one in family.samples if one.name.endswith("_total")] == [
        ({"deadline": "headers", "waited_for": "head"}, 1),
        ({"deadline": "body", "waited_for": "body"}, 2),
    ]


def test_neither_environment_nor_import_order_decides_where_metrics_are_kept(
    tmp_path: Path,
) -> None:
    script = """
import sys
from pathlib import Path
import prometheus_client
from kronos_api.telemetry.metrics import metrics
from kronos_api.telemetry.slots import Slots
metrics.errors.labels("CODE").inc()
metrics.share(Slots(Path(sys.argv[2])))
metrics.errors.labels("CODE").inc(2)
assert not list(Path(sys.argv[1]).iterdir())
assert 'kronos_errors_total{code="CODE"} 2.0' in metrics.render().decode()
"""
    others, own = tmp_path / "others", tmp_path / "own"
    others.mkdir()
    subprocess.run(
        [sys.executable, "-c", script, str(others), str(own)],
        cwd=ROOT,
        env=os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(others)},
        check=True,
    )
    assert (own / "counter_1.db").stat().st_size
