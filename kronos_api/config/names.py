"""Which variables are settings, and a line for each that looks like one and is none."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Final

from kronos_api.config.renamed import RENAMED
from kronos_api.config.serving import GUNICORN, PREFIX
from kronos_api.config.settings import Settings

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
        "KRONOS_API_KEYS_DIR",
        "KRONOS_NETWORK",
        "KRONOS_SUBNET",
        "KRONOS_HTTPS_PORT",
        "KRONOS_HTTP_PORT",
        "KRONOS_TLS_DIR",
        "KRONOS_TLS_NAME",
        "KRONOS_GATEWAY_RATE",
        "KRONOS_GATEWAY_BURST",
        "KRONOS_GATEWAY_CONNECTIONS",
        "KRONOS_GPU_IMAGE",
        "KRONOS_GPU_TORCH",
        "KRONOS_GPU_MEMORY_LIMIT",
        "KRONOS_DEV_IMAGE",
        "KRONOS_DEV_PORT",
        "KRONOS_SOURCE",
        "KRONOS_MONITORING_NETWORK",
        "KRONOS_STORE_NETWORK",
    }
)
"""Variables that the compose files, deploy.sh and Gunicorn's own command read."""

CLOSE: Final = 0.85
"""Similarity to a known name from which on a name without our prefixes counts as misspelt."""

FIRST_SERVICE: Final = {
    "KRONOS_DEFAULT_LOOKBACK": "the candles of a request are its history; leave it out",
    "KRONOS_ENABLE_METRICS": "metrics are always on; KRONOS_SECURITY_EXEMPT_PATHS opens "
    "them to every caller",
    "KRONOS_MODEL_HOST_PATH": "use KRONOS_MODELS_DIR",
}
"""Settings of the first Kronos service that do not exist here, and their replacement."""


def variable(name: str) -> str:
    """The environment variable of the setting `name`."""
    alias = Settings.model_fields[name].validation_alias
    return str(alias) if alias else PREFIX + name.upper()


def unknown_variables(names: Iterable[str], *, misspelt_prefixes: bool = False) -> list[str]:
    """One line for each of `names` that looks like a setting and is none.

    Not an error: Kubernetes injects `KRONOS_API_*` beside a service of that name. With
    `misspelt_prefixes`, a name without our prefixes that resembles a known one has a line as well.
    """
    known = {*map(variable, Settings.model_fields), *OTHERS}
    by_rest = {name.partition("_")[2]: name for name in sorted(known)}
    lines = []
    for name in sorted(names):
        whole = name.upper()
        if whole in known or whole in RENAMED:
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
        lines.append(f"{name!a} is not a setting{hint}")
    return lines
