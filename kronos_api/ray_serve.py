"""The service as an application of Ray Serve: `serve run deploy/ray/serve.yaml`.

A replica is one process of the service, with the application, the engine and the settings that a
worker of `kronos-api serve` has. Ray starts, watches and stops replicas, and its proxies speak HTTP
in place of our own server. `deploy/ray/serve.yaml` has the options of a cluster.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Final

import ray
from fastapi import FastAPI
from ray import serve

from kronos_api.app import create_app
from kronos_api.config import Settings, load_settings
from kronos_api.launch import announce
from kronos_api.predictor import AsyncPredictor
from kronos_api.telemetry.logging import configure
from kronos_api.telemetry.metrics import metrics
from kronos_api.telemetry.slots import Slots

MEMORY: Final = Path("/dev/shm")
ONGOING: Final = 4
"""Requests in progress for each replica that autoscaling aims at: with one core, those that
Kronos-small answers within two seconds."""
ADMITTED: Final = 128
"""Requests that Ray sends a replica at once. More than the queue and the engine hold, so that the
replica refuses what is too much, with Retry-After, and not Ray's proxy."""
STOP_SECONDS: Final = 85
"""Seconds that a replica has to stop, above KRONOS_SHUTDOWN_TIMEOUT."""


def build_app() -> FastAPI:
    """The application of one replica; Ray calls this in the replica's process.

    Raises:
        StartupError: a setting is invalid.
    """
    configure()
    settings = load_settings()
    if settings.torch_threads is None:
        settings = settings.model_copy(update={"torch_threads": _assigned_cores()})
    metrics.share(Slots(_metrics_directory(settings)))
    app = create_app(settings)
    announce(settings, workers=1)
    return app


class Replica:
    """One process of the service."""

    app: FastAPI

    async def check_health(self) -> None:
        """Wait until the model is loaded; Ray replaces the replica after three errors.

        Raises:
            StartupError: the model could not be loaded.
            RuntimeError: the engine does not advance.
        """
        predictor: AsyncPredictor = self.app.state.predictor
        await predictor.ready()
        if predictor.state == "stalled":
            raise RuntimeError("The engine does not advance.")


def _assigned_cores() -> int:
    """The cores that Ray has assigned to this replica, at least one."""
    return max(1, int(ray.get_runtime_context().get_assigned_resources().get("CPU", 1)))


def _metrics_directory(settings: Settings) -> Path:
    """The directory in which all replicas of this node count; it outlives them."""
    parent = MEMORY if os.access(MEMORY, os.W_OK) else Path(tempfile.gettempdir())
    return (settings.metrics_dir or parent) / f"kronos-ray-{os.getuid()}"


deployment = serve.deployment(
    serve.ingress(build_app)(Replica),
    name="kronos-api",
    ray_actor_options={"num_cpus": 1},
    max_ongoing_requests=ADMITTED,
    autoscaling_config={"min_replicas": 1, "max_replicas": 8, "target_ongoing_requests": ONGOING},
    graceful_shutdown_timeout_s=STOP_SECONDS,
)
app = deployment.bind()
