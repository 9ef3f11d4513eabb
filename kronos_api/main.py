"""The ASGI entry: `uvicorn kronos_api.main:app`."""

from __future__ import annotations

from kronos_api.app import create_app
from kronos_api.config import load_settings
from kronos_api.errors import StartupError
from kronos_api.telemetry.logging import configure

configure()
try:
    app = create_app(load_settings())
except StartupError as error:
    raise SystemExit(f"kronos-api: {error}") from None
