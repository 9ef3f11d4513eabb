"""What holds for all tests."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import settings

# How long an example takes is not judged, as in CI.
settings.register_profile("patient", settings(), deadline=None)
settings.load_profile("patient")


@pytest.fixture(autouse=True)
def untouched_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """No setting comes from outside, and how a test configures logging ends with it.

    Each test counts its calls by itself.
    """
    for name in os.environ:
        if name.upper().startswith(("KRONOS_", "GUNICORN_")):
            monkeypatch.delenv(name)
    monkeypatch.setattr("kronos_api.config.env_file.ENV_FILE", Path("/nonexistent/.env"))
    for name in ("no_proxy", "NO_PROXY"):  # what tests ask is on this machine
        monkeypatch.setenv(name, "127.0.0.1,localhost,::1", prepend=",")
    folder = tmp_path_factory.mktemp("rate-limit")
    monkeypatch.setattr("kronos_api.ratelimit.host.default_folder", lambda: folder)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(False)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
