"""Declares metrics: name, help text, labels, and how the values of several workers combine."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Generic, Literal, Protocol, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 2.5, 5, 10, 30, 60)
"""Upper bounds in seconds."""

M_co = TypeVar("M_co", bound=Counter | Gauge | Histogram, covariant=True)


class MakeMetric(Protocol[M_co]):
    """Makes a metric in a registry."""

    def __call__(self, *, registry: CollectorRegistry) -> M_co:
        """The metric; its values are kept as `prometheus_client.values.ValueClass` says."""
        ...


class Definition(Generic[M_co]):
    """A metric of a class that calls `create`; an attribute of its instances afterwards."""

    def __init__(self, make: MakeMetric[M_co]) -> None:
        self.make = make

    # Without `__set__`, an instance's own attribute comes before this one.
    def __get__(self, instance: object, owner: type) -> M_co:
        raise AttributeError(f"the metrics of {owner.__name__} have not been created")


def create(instance: object, registry: CollectorRegistry) -> None:
    """Make every metric that the classes of `instance` declare, and set it on `instance`."""
    for owner in reversed(type(instance).__mro__):
        for name, definition in vars(owner).items():
            if isinstance(definition, Definition):
                setattr(instance, name, definition.make(registry=registry))


def counter(name: str, help: str, *labels: str) -> Definition[Counter]:
    """A value that only grows; the values of workers are summed."""
    return Definition(partial(Counter, name, help, labels))


def histogram(
    name: str, help: str, *labels: str, buckets: Sequence[float] = LATENCY_BUCKETS
) -> Definition[Histogram]:
    """A distribution, of seconds by default; the values of workers are summed."""
    return Definition(partial(Histogram, name, help, labels, buckets=buckets))


def gauge(
    name: str, help: str, *labels: str, over_workers: Literal["livesum", "livemax"] = "livesum"
) -> Definition[Gauge]:
    """A current value; of the workers that live, the sum or the maximum is reported."""
    options: dict[str, Any] = {"multiprocess_mode": over_workers}
    return Definition(partial(Gauge, name, help, labels, **options))
