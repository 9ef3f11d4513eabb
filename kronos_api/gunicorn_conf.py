"""Gunicorn's settings, for those who start it by themselves.

    gunicorn -c python:kronos_api.gunicorn_conf kronos_api.main:app

`kronos-api serve` starts it with the same, and with a master that replaces workers gently.
"""

from __future__ import annotations

from kronos_api.config import load_settings
from kronos_api.telemetry import logging, multiprocess

logging.configure()
_settings = load_settings()
logging.configure(_settings.log_level)
multiprocess.prepare(_settings.metrics_dir)

# Only now, for it imports the metrics, which look where they are to be kept.
from kronos_api.launch import announce, gunicorn_options, workers  # noqa: E402

announce(_settings, workers(_settings))

globals().update(gunicorn_options(_settings))
