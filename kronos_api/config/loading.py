"""Reads the settings, and tells in one line what is wrong with them."""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Mapping
from typing import Final

from pydantic import ValidationError

from kronos_api.config.serving import GUNICORN, PREFIX
from kronos_api.config.settings import Settings
from kronos_api.errors import StartupError

OTHERS: Final = frozenset(
    {
        "GUNICORN_CMD_ARGS",
        "KRONOS_IMAGE",
        "KRONOS_CPU_LIMIT",
        "KRONOS_MEMORY_LIMIT",
        "KRONOS_STOP_GRACE",
        "KRONOS_MODELS_DIR",
        "KRONOS_NETWORK",
        "KRONOS_SUBNET",
        "KRONOS_HTTPS_PORT",
        "KRONOS_HTTP_PORT",
        "KRONOS_TLS_DIR",
        "KRONOS_GPU_IMAGE",
        "KRONOS_GPU_TORCH",
        "KRONOS_GPU_MEMORY_LIMIT",
        "KRONOS_DEV_IMAGE",
        "KRONOS_DEV_PORT",
        "KRONOS_SOURCE",
        "KRONOS_MONITORING_NETWORK",
    }
)
"""Variables that Gunicorn's own command and the compose files read, and the service does not."""

FIRST_SERVICE: Final = {
    "KRONOS_DEFAULT_LOOKBACK": "the candles of a request are its history; leave it out",
    "KRONOS_ENABLE_METRICS": "metrics are always on; KRONOS_SECURITY_EXEMPT_PATHS decides who may "
    "read them",
    "KRONOS_MODEL_HOST_PATH": "use KRONOS_MODELS_DIR",
}
"""Settings of the first Kronos service that are gone, and what to do instead."""


def load_settings() -> Settings:
    """Read the environment; unknown variables of these names are warned about.

    Raises `StartupError` with one line that names every bad variable and its rule.
    """
    try:
        settings = Settings()
    except ValidationError as error:
        raise StartupError(_one_line(error)) from None
    for line in unknown_variables(os.environ):
        logging.getLogger(__name__).warning(line)
    return settings


def variable(name: str) -> str:
    """The environment variable of the setting `name`."""
    alias = Settings.model_fields[name].validation_alias
    return str(alias) if alias else PREFIX + name.upper()


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """One line for each variable in `environ` that looks like a setting and is none.

    Not an error: Kubernetes injects `KRONOS_API_*` beside a service of that name.
    """
    known = {variable(name).partition("_")[2]: variable(name) for name in Settings.model_fields}
    lines = []
    for name in sorted(environ):
        whole = name.upper()
        if not whole.startswith((PREFIX, GUNICORN)) or whole in (*known.values(), *OTHERS):
            continue
        if whole in FIRST_SERVICE:
            lines.append(f"{name} is a setting of the first service: {FIRST_SERVICE[whole]}")
            continue
        near = difflib.get_close_matches(whole.partition("_")[2], known, n=1)
        hint = f"; did you mean {known[near[0]]}?" if near else ""
        lines.append(f"{name!a} is no setting{hint}")
    return lines


def _one_line(error: ValidationError) -> str:
    """All faults, joined by "; ". Values stay out of it: a variable may hold a secret."""
    faults = []
    for fault in error.errors(include_url=False, include_input=False):
        message = fault["msg"].removeprefix("Value error, ")
        if fault["loc"]:
            name = str(fault["loc"][0])
            name = variable(name) if name in Settings.model_fields else name.upper()
            message = f"{name}: {message[0].lower()}{message[1:]}"
        faults.append(message)
    return "; ".join(faults)
