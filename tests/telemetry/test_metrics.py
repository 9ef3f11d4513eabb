"""Metrics that can be summed over processes."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.parser import text_string_to_metric_families

from kronos_api.telemetry import metrics

OURS = [one for one in vars(metrics).values() if isinstance(one, Counter | Gauge | Histogram)]


def test_there_are_only_kinds_that_add_up() -> None:
    described = [family for family in metrics.REGISTRY.collect() if family.name.startswith("kron")]
    assert len(described) == len(OURS)
    assert {family.type for family in described} == {"counter", "gauge", "histogram"}


def test_gauges_forget_the_dead() -> None:
    gauges = [one for one in OURS if isinstance(one, Gauge)]
    assert gauges
    assert all(gauge._multiprocess_mode.startswith("live") for gauge in gauges)


def test_buckets_reach_from_5_ms_to_a_minute() -> None:
    metrics.REQUEST_DURATION.labels("/buckets").observe(1)
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
