"""Whether requests are traced, by OpenTelemetry's own environment variables.

This module needs no package of the extra `otel`; `spans`, which does, is imported only if it is on.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from kronos_api.telemetry.spans import Spans

ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PACKAGES: Final = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")


def wanted(variables: Mapping[str, str]) -> bool:
    """Whether `variables` name a collector and do not turn traces off."""
    if variables.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    if variables.get("OTEL_TRACES_EXPORTER", "otlp") != "otlp":
        return False
    return any(variables.get(name) for name in ENDPOINTS)


def installed() -> bool:
    """Whether the extra `otel` is installed."""
    try:
        return all(find_spec(name) is not None for name in PACKAGES)
    except ModuleNotFoundError:  # a parent package is missing
        return False


def build_spans(variables: Mapping[str, str], version: str) -> Spans | None:
    """The spans of this process, exported in the background; None where traces are off."""
    if not wanted(variables) or not installed():
        return None
    from kronos_api.telemetry.spans import Spans

    return Spans(variables, version)
