"""What the servers are started with."""

from __future__ import annotations

import json
from typing import Any

import pytest
from gunicorn.config import Config

from kronos_api import __version__
from kronos_api.config import Settings
from kronos_api.launch import announce, gunicorn_options, uvicorn_options
from kronos_api.server.worker import Worker
from kronos_api.telemetry import logging


def test_gunicorn_options_have_the_documented_defaults() -> None:
    config = Config()
    for name, value in gunicorn_options(Settings()).items():
        config.set(name, value)
    assert (config.worker_connections, config.keepalive) == (1000, 5)
    assert (config.max_requests, config.max_requests_jitter) == (50_000, 5000)
    assert (config.timeout, config.graceful_timeout) == (8, 85)
    assert issubclass(config.worker_class, Worker)
    assert config.worker_class.OPTIONS["server_header"] is False
    assert config.control_socket_disable
    assert not config.preload_app
    assert config.address == [("0.0.0.0", 8000)]


def test_the_start_is_logged_with_build_and_limits(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KRONOS_BUILD_COMMIT", "abc")
    logging.configure()
    settings = Settings(torch_threads=3, container_whitelist="localhost,web", max_queue=70)
    announce(settings, workers=2)
    announce(Settings(security_enabled=False, rate_limit_enabled=False), workers=1)
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    expected = {
        "event": "service_starting",
        "version": __version__,
        "commit": "abc",
        "workers": 2,
        "threads_per_worker": 3,
        "device": "auto",
        "whitelist_entries": 2,
        "rate_limit_per_minute": 100,
        "rate_limit_store": "host",
        "max_queue": 70,
        "max_requests_in_progress": 1000,
        "max_request_size_mb": 10,
        "body_memory_mb": 256,
        "kv_cache_mb": 1024,
    }
    assert first | expected == first
    assert second["whitelist_entries"] is second["rate_limit_per_minute"] is None


def test_ipv6_address_is_valid_for_gunicorn() -> None:
    config = Config()
    config.set("bind", gunicorn_options(Settings(host="::1", port=9))["bind"])
    assert config.address == [("::1", 9)]


def test_deadlines_come_from_the_settings() -> None:
    settings: dict[str, Any] = {"GUNICORN_KEEPALIVE": 7.5, "shutdown_timeout": 90.5}
    options = uvicorn_options(Settings(**settings))
    assert options["http"].keywords["deadlines"].idle == 7.5
    assert options["timeout_graceful_shutdown"] == 91
