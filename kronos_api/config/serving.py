"""How the service is run: where it listens, in how many processes, and for how long it waits."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

PREFIX: Final = "KRONOS_"
GUNICORN: Final = "GUNICORN_"

STOP_MARGIN: Final = 10
"""Seconds that Gunicorn gives a worker beyond SHUTDOWN_TIMEOUT, unless told otherwise."""

LAST_STEPS: Final = 3
"""Seconds that the last steps of a stop may take after SHUTDOWN_TIMEOUT."""

Seconds = Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)]


def _known(name: str, default: Any, **bounds: Any) -> Any:
    """A setting that has the name which operators know from Gunicorn."""
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
    metrics_dir: Path | None = None
    """Folder where workers keep their metrics; unset: /dev/shm, else a temporary one."""

    workers: int | None = _known("WORKERS", None, ge=1, le=1024)
    """Processes that serve, each with a model of its own; unset: one for 4 cores, one on a GPU."""
    worker_connections: int = _known("WORKER_CONNECTIONS", 1000, ge=1, le=1_000_000)
    """Requests in progress in a worker, without probes and bodies under way; more are refused."""
    max_requests: int = _known("MAX_REQUESTS", 50_000, ge=0, le=1_000_000_000)
    """Requests after which a worker is replaced; 0: never."""
    max_requests_jitter: int = _known("MAX_REQUESTS_JITTER", 5000, ge=0, le=1_000_000_000)
    """Up to so many more, by chance, so that workers are not replaced at one time."""
    timeout: int = _known("TIMEOUT", 8, ge=0, le=3600)
    """Seconds without a heartbeat after which a worker that serves is killed; 0: never."""
    graceful_timeout: int | None = _known("GRACEFUL_TIMEOUT", None, ge=1, le=7200)
    """Seconds a worker has to stop; 3 above SHUTDOWN_TIMEOUT, or more. Unset: 10 more."""
    keepalive: Seconds = _known("KEEPALIVE", 5)
    """Seconds a connection is kept open for the next request; a proxy should close first."""

    limit_concurrency: int | None = Field(default=None, ge=1, le=1_000_000)
    """As GUNICORN_WORKER_CONNECTIONS, which holds if this is unset."""
    limit_max_requests: int | None = Field(default=None, ge=1, le=1_000_000_000)
    """Requests after which the process ends, to be started again; unset: never."""
    limit_max_requests_jitter: int = Field(default=5000, ge=0, le=1_000_000_000)
    """Up to so many more, by chance."""

    inference_timeout: Seconds = 30
    """Seconds a request may spend in the model; below REQUEST_TIMEOUT."""
    request_timeout: Seconds = 60
    """Seconds a request may take in all; below SHUTDOWN_TIMEOUT."""
    startup_timeout: Seconds = 120
    """Seconds for finding, checking and loading the checkpoints; a start that needs more ends."""
    shutdown_timeout: Seconds = 75
    """Seconds for answering accepted requests when the service stops."""

    header_timeout: Seconds = 5
    """Seconds for the line and headers of a request, from their first byte or from connecting."""
    body_timeout: Seconds = 10
    """Seconds for the body of a request, from the end of its headers."""
    answer_timeout: Seconds = 30
    """Seconds for taking what is written of an answer to a full connection."""
    connections_per_peer: int = Field(default=64, ge=1, le=1_000_000)
    """Connections that one unlisted peer address may have open in a worker; more are closed."""
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
        """Requests that may be in progress in one process."""
        return self.limit_concurrency or self.worker_connections
