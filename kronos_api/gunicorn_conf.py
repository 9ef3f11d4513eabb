"""Gunicorn's settings, for its own command.

    gunicorn -c python:kronos_api.gunicorn_conf kronos_api.main:app

`kronos-api serve` uses the same settings with a master that starts a replacement before it retires
a worker.
"""

from __future__ import annotations

from kronos_api.capacity import workers
from kronos_api.config import load_settings
from kronos_api.launch import announce, gunicorn_options, share_metrics, take_orders
from kronos_api.telemetry import logging

logging.configure()
_settings = load_settings()
logging.configure(_settings.log_level, _settings.log_format, _settings.replica_name)
share_metrics(_settings)
take_orders(_settings)
announce(_settings, workers(_settings))

globals().update(gunicorn_options(_settings))
