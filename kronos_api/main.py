"""The ASGI entry: `uvicorn kronos_api.main:app`, or Gunicorn with `kronos_api.gunicorn_conf`."""

from __future__ import annotations

import sys

from kronos_api.app import create_app
from kronos_api.capacity import workers
from kronos_api.config import load_settings
from kronos_api.errors import StartupError
from kronos_api.launch import announce
from kronos_api.telemetry.logging import configure

# Gunicorn imports this in each of its workers; under any other server there is one process.
_under_gunicorn = "gunicorn.arbiter" in sys.modules

configure()
try:
    _settings = load_settings()
    app = create_app(_settings, workers=workers(_settings) if _under_gunicorn else 1)
    if not _under_gunicorn:
        announce(_settings, workers=1)
except StartupError as error:
    if _under_gunicorn:
        raise  # the worker logs it
    raise SystemExit(f"kronos-api: {error}") from None
