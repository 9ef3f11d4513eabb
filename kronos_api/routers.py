"""The routers of the service, grouped by what limits and counts them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from fastapi import APIRouter
from starlette.routing import Route

from kronos_api.middleware.access_log import UNMATCHED
from kronos_api.middleware.rate_limit import PREFIX
from kronos_api.telemetry.known_labels import KnownLabels


@dataclass(frozen=True)
class Routers:
    """The routers of the service, by their limits."""

    forecasts: APIRouter
    health: APIRouter
    scrapes: APIRouter
    """Metrics, which do not count the requests for them."""
    others: tuple[APIRouter, ...]

    @property
    def probes(self) -> tuple[APIRouter, ...]:
        """Health and metrics: never refused because the service is busy."""
        return self.health, self.scrapes

    @property
    def all(self) -> tuple[APIRouter, ...]:
        """All routers, in the order of their routes."""
        return (self.forecasts, *self.probes, *self.others)

    def labels(self, containers: Collection[str]) -> KnownLabels:
        """The labels of metrics, where the whitelist has the entries `containers`."""
        forecasts = paths_of(self.forecasts)
        return KnownLabels(
            routes=[*forecasts, *paths_of(self.health, *self.others), UNMATCHED],
            forecasts=[(path.removeprefix(PREFIX), path) for path in forecasts],
            containers=containers,
        )


def paths_of(*routers: APIRouter) -> list[str]:
    """The templates of all routes of `routers`."""
    routes = [route for router in routers for route in router.routes]
    return [route.path for route in routes if isinstance(route, Route)]
