"""Reads the settings, and says in one line what is wrong with them."""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from pydantic import ValidationError

from kronos_api.config.env_file import ENV_FILE, EnvFile, read_env_file
from kronos_api.config.serving import GUNICORN, PREFIX
from kronos_api.config.settings import Settings
from kronos_api.errors import StartupError

OTHERS: Final = frozenset(
    {
        "ALERTMANAGER_PORT",
        "ALERTMANAGER_VERSION",
        "BUILD_DATE",
        "COMPOSE_DEV_PROJECT_NAME",
        "COMPOSE_FILE",
        "COMPOSE_PROFILES",
        "COMPOSE_PROJECT_NAME",
        "DEPLOY_TIMEOUT",
        "GIT_COMMIT",
        "GRAFANA_PASSWORD",
        "GRAFANA_PORT",
        "GRAFANA_VERSION",
        "GUNICORN_CMD_ARGS",
        "PROMETHEUS_PORT",
        "PROMETHEUS_RETENTION",
        "PROMETHEUS_RETENTION_SIZE",
        "PROMETHEUS_VERSION",
        "KRONOS_BUILD_COMMIT",
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
"""Variables that Gunicorn's own command, the compose files and deploy.sh read, not the service."""

CLOSE: Final = 0.85
"""How like a known name another one must be to count as misspelt, where its prefix is not ours."""

log = logging.getLogger(__name__)

FIRST_SERVICE: Final = {
    "KRONOS_DEFAULT_LOOKBACK": "the candles of a request are its history; leave it out",
    "KRONOS_ENABLE_METRICS": "metrics are always on; KRONOS_SECURITY_EXEMPT_PATHS decides who may "
    "read them",
    "KRONOS_MODEL_HOST_PATH": "use KRONOS_MODELS_DIR",
}
"""Settings of the first Kronos service that are gone, and what to do instead."""


def load_settings(tell: Callable[[str], object] | None = None) -> Settings:
    """Read the environment, and `.env` in the working directory for what the environment lacks.

    A variable that is set but empty in the environment is not looked up in the file. That the file
    was read, and names that are no setting, are passed to `tell`, a line each; by default they are
    logged.

    Raises `StartupError` with one line that names every bad variable and its rule.
    """
    file = read_env_file(os.environ)
    given = _given(file, os.environ) if file else {}
    try:
        arguments: dict[str, Any] = {_argument(name): value for name, value in given.items()}
        settings = Settings(**arguments)
    except ValidationError as error:
        raise StartupError(_one_line(error, given)) from None
    if file is not None:
        (tell or log.info)(f"{len(given)} settings read from {file.path}")
        for number in file.ignored_lines:
            line = f"{file.path.name}: line {number} is ignored: it is not of the form NAME=value"
            (tell or log.warning)(line)
        for line in unknown_variables(file.values, misspelt_prefixes=True):
            (tell or log.warning)(f"{file.path.name}: {line}")
    for line in unknown_variables(os.environ):
        (tell or log.warning)(line)
    return settings


def variable(name: str) -> str:
    """The environment variable of the setting `name`."""
    alias = Settings.model_fields[name].validation_alias
    return str(alias) if alias else PREFIX + name.upper()


def unknown_variables(names: Iterable[str], *, misspelt_prefixes: bool = False) -> list[str]:
    """One line for each of `names` that looks like a setting and is none.

    Not an error: Kubernetes injects `KRONOS_API_*` beside a service of that name. With
    `misspelt_prefixes`, a name without our prefixes that resembles a known one is told as well.
    """
    known = {*map(variable, Settings.model_fields), *OTHERS}
    by_rest = {name.partition("_")[2]: name for name in sorted(known)}
    lines = []
    for name in sorted(names):
        whole = name.upper()
        if whole in known:
            continue
        if whole in FIRST_SERVICE:
            lines.append(f"{name} is a setting of the first service: {FIRST_SERVICE[whole]}")
            continue
        if whole.startswith((PREFIX, GUNICORN)):
            found = difflib.get_close_matches(whole.partition("_")[2], by_rest, n=1)
            near = [by_rest[rest] for rest in found]
        elif misspelt_prefixes:
            near = difflib.get_close_matches(whole, known, n=1, cutoff=CLOSE)
            if not near:
                continue
        else:
            continue
        hint = f"; did you mean {near[0]}?" if near else ""
        lines.append(f"{name!a} is no setting{hint}")
    return lines


def _given(file: EnvFile, environ: Mapping[str, str]) -> dict[str, str]:
    """The settings of `file` by their variables, without those that `environ` has."""
    settings = {variable(name) for name in Settings.model_fields}
    taken = {name.upper() for name in environ}
    values = {name.upper(): value for name, value in file.values.items()}
    return {
        name: value
        for name, value in values.items()
        if value and name in settings and name not in taken
    }


def _argument(name: str) -> str:
    """What the variable `name` is called when settings are made by hand."""
    return name if name.startswith(GUNICORN) else name.removeprefix(PREFIX).lower()


def _one_line(error: ValidationError, from_file: Mapping[str, str]) -> str:
    """All faults, joined by "; ". Values stay out of it: a variable may hold a secret."""
    faults = []
    for fault in error.errors(include_url=False, include_input=False):
        message = fault["msg"].removeprefix("Value error, ")
        if fault["loc"]:
            name = str(fault["loc"][0])
            name = variable(name) if name in Settings.model_fields else name.upper()
            where = f"{name} in {ENV_FILE}" if name in from_file else name
            message = f"{where}: {message[0].lower()}{message[1:]}"
        faults.append(message)
    return "; ".join(faults)
