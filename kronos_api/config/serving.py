"""Settings of the server: address, processes, connections and timeouts."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

PREFIX: Final = "KRONOS_"
GUNICORN: Final = "GUNICORN_"

STOP_MARGIN: Final = 10
"""Seconds beyond SHUTDOWN_TIMEOUT after which Gunicorn kills a worker, by default."""

LAST_STEPS: Final = 3
"""Seconds for the last steps of a stop, after SHUTDOWN_TIMEOUT."""

Seconds = Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)]


def _known(name: str, default: Any, **bounds: Any) -> Any:
    """A setting with the name that Gunicorn has for it."""
    return Field(default=default, validation_alias=GUNICORN + name, **bounds)


class Serving(BaseSettings):
    """Settings of the processes and their connections; frozen once read."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        frozen=True,
        protected_namespaces=(),
        use_attribute_docstrings=True,
    )

    app_name: str = Field(default="Kronos API", min_length=1, max_length=100)
    """Name of the service in its documentation and at `/`."""
    host: str = Field(default="0.0.0.0", min_length=1)
    """Address the server binds."""
    port: int = Field(default=8000, ge=1, le=65535)
    """Port the server binds."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = "INFO"
    """Lowest level that is logged: DEBUG, INFO, WARNING, ERROR or CRITICAL."""
    mcp: bool = False
    """Whether /mcp serves tools to agents (Model Context Protocol); needs the extra `mcp`."""
    playground: bool = False
    """Whether /playground is a page to try forecasts; it needs the extra playground."""
    log_format: Literal["json", "console"] = "json"
    """Log lines: json, one object a line, or console, for people."""
    replica_name: str | None = Field(default=None, max_length=100)
    """Field `replica` of log lines; unset: the host name, in a container its short id."""
    control_dir: Path | None = None
    """Folder of the operator commands; unset: /dev/shm, else a temporary one."""
    metrics_dir: Path | None = None
    """Folder where workers keep their metrics; unset: /dev/shm, else a temporary one."""

    workers: int | None = _known("WORKERS", None, ge=1, le=1024)
    """Processes with a model each; unset: one a core if memory allows, 8 at most; one on a GPU."""
    worker_connections: int = _known("WORKER_CONNECTIONS", 1000, ge=1, le=1_000_000)
    """Requests in progress per worker, probes and unfinished bodies aside; more get 503."""
    max_requests: int = _known("MAX_REQUESTS", 50_000, ge=0, le=1_000_000_000)
    """Requests after which a worker is recycled; 0: never."""
    max_requests_jitter: int = _known("MAX_REQUESTS_JITTER", 5000, ge=0, le=1_000_000_000)
    """Random extra requests, at most, so that workers are not recycled at the same time."""
    timeout: int = _known("TIMEOUT", 8, ge=0, le=3600)
    """Seconds without a heartbeat after which a worker that serves is killed; 0: never."""
    graceful_timeout: int | None = _known("GRACEFUL_TIMEOUT", None, ge=1, le=7200)
    """Seconds a worker has to stop; SHUTDOWN_TIMEOUT + 3 or more. Unset: SHUTDOWN_TIMEOUT + 10."""
    keepalive: Seconds = _known("KEEPALIVE", 5)
    """Seconds a connection is kept open for the next request; a proxy should close first."""

    limit_concurrency: int | None = Field(default=None, ge=1, le=1_000_000)
    """Requests in progress; more get 503. Unset: GUNICORN_WORKER_CONNECTIONS."""
    limit_max_requests: int | None = Field(default=None, ge=1, le=1_000_000_000)
    """Requests after which the process ends, to be started again; unset: never."""
    limit_max_requests_jitter: int = Field(default=5000, ge=0, le=1_000_000_000)
    """Random extra requests, at most."""

    inference_timeout: Seconds = 30
    """Seconds a request may spend in the model; below REQUEST_TIMEOUT."""
    request_timeout: Seconds = 60
    """Seconds a request may take in all; below SHUTDOWN_TIMEOUT."""
    startup_timeout: Seconds = 120
    """Seconds to find, check and load the checkpoints; a start that takes longer fails."""
    shutdown_timeout: Seconds = 75
    """Seconds to answer accepted requests when the service stops."""

    header_timeout: Seconds = 5
    """Seconds for the request line and headers, from their first byte or from connecting."""
    body_timeout: Seconds = 10
    """Seconds for the body of a request, from the end of its headers."""
    send_timeout: Seconds = 30
    """Seconds a client has to read what was sent once its receive buffers are full."""
    connections_per_peer: int = Field(default=64, ge=1, le=1_000_000)
    """Open connections of one unlisted peer address per worker; more are closed."""
    connections_per_listed_peer: int = Field(default=10_000, ge=1, le=1_000_000)
    """The same for a peer that the whitelist or KRONOS_TRUSTED_PROXIES names."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read the environment alone, which already holds what `.env` adds."""
        del settings_cls, dotenv_settings, file_secret_settings
        return init_settings, env_settings

    @property
    def stop_timeout(self) -> int:
        """Seconds until a worker that has not stopped by itself is killed."""
        if self.graceful_timeout is not None:
            return self.graceful_timeout
        return math.ceil(self.shutdown_timeout) + STOP_MARGIN

    @property
    def concurrency(self) -> int:
        """Requests in progress in one process, at most."""
        return self.limit_concurrency or self.worker_connections
