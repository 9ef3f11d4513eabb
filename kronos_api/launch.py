"""From settings to the options of Gunicorn and uvicorn."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog

from kronos_api.build_info import this_build
from kronos_api.capacity import threads, workers
from kronos_api.config import Settings
from kronos_api.controls import Controls, control_directory
from kronos_api.server.deadlines import Deadlines
from kronos_api.server.uvicorn_config import options
from kronos_api.telemetry import logging, process_metrics, tracing
from kronos_api.telemetry.directory import create_directory
from kronos_api.telemetry.metrics import metrics
from kronos_api.telemetry.slots import Slots

if TYPE_CHECKING:
    from kronos_api.server.worker import Worker

log = structlog.stdlib.get_logger(__name__)

MEMORY: Final = Path("/dev/shm")


def announce(settings: Settings, workers: int) -> None:
    """Log the build that starts and its limits."""
    build = this_build()
    if tracing.wanted(os.environ) and not tracing.installed():
        log.warning("tracing_unavailable", hint="pip install 'kronos-api[otel]'")
    limited, guarded = settings.rate_limit_enabled, settings.security_enabled
    log.info(
        "service_starting",
        version=build.version,
        commit=build.commit,
        workers=workers,
        threads_per_worker=threads(settings, workers),
        device=settings.device,
        whitelist_entries=len(settings.whitelist) if guarded else None,
        rate_limit_per_minute=settings.rate_limit_per_minute if limited else None,
        rate_limit_store="redis" if settings.redis_url else "host",
        max_queue=settings.max_queue,
        max_requests_in_progress=settings.concurrency,
        max_request_size_mb=settings.max_request_size_mb,
        body_memory_mb=settings.body_memory_mb,
        kv_cache_mb=settings.kv_cache_mb,
    )


def uvicorn_options(settings: Settings) -> dict[str, Any]:
    """Options of `uvicorn.Config`, the same for every way to serve."""
    deadlines = Deadlines(
        headers=settings.header_timeout,
        body=settings.body_timeout,
        send=settings.send_timeout,
        idle=settings.keepalive,
    )
    return options(
        deadlines,
        shutdown_timeout=settings.shutdown_timeout,
        max_body=settings.max_request_bytes,
        connections=(settings.connections_per_peer, settings.connections_per_listed_peer),
    )


def gunicorn_options(settings: Settings) -> dict[str, Any]:
    """Gunicorn's settings."""
    # Imported here, because a single process does not need Gunicorn.
    from kronos_api.server.worker import Logger, Worker

    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return {
        "bind": f"{host}:{settings.port}",
        "workers": workers(settings),
        "worker_class": type("KronosWorker", (Worker,), {"OPTIONS": uvicorn_options(settings)}),
        "worker_connections": settings.concurrency,
        "max_requests": settings.max_requests,
        "max_requests_jitter": settings.max_requests_jitter,
        "timeout": settings.timeout,
        "graceful_timeout": settings.stop_timeout,
        "keepalive": round(settings.keepalive),
        "preload_app": False,
        # No file is written where the file system could be read-only or the disk slow.
        "control_socket_disable": True,
        "worker_tmp_dir": str(MEMORY) if os.access(MEMORY, os.W_OK) else None,
        "logger_class": Logger,
        # In the titles of the processes: "gunicorn: worker [kronos-api]".
        "proc_name": "kronos-api",
        "pre_fork": pre_fork,
        "child_exit": child_exit,
    }


def share_metrics(settings: Settings) -> None:
    """Keep metrics where all workers can read them; for the master, before it counts anything.

    Raises `StartupError` if the directory cannot be written to.
    """
    metrics.share(Slots(create_directory(settings.metrics_dir)))


def take_orders(settings: Settings) -> Callable[[], None]:
    """Forget the orders to the service before; what the master calls now and then.

    The master obeys the log level alone, workers the other orders too.
    """
    controls = Controls(control_directory(settings.control_dir, settings.port))
    controls.reset()
    return lambda: logging.set_level(controls.read().log_level or settings.log_level)


def pre_fork(_arbiter: object, _worker: object) -> None:
    """Called by Gunicorn before a worker starts, which needs the metrics directory."""
    process_metrics.maintain_master()


def child_exit(_arbiter: object, worker: Worker) -> None:
    """Called by Gunicorn when a worker has ended."""
    worker.load.withdraw()
    if worker.died:
        process_metrics.count_worker_death()
    with suppress(OSError):  # every scrape does it as well
        metrics.drop_dead_gauges()
