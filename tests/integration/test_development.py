"""The service for development: the source is mounted, and a changed line is soon live."""

from __future__ import annotations

import json
import logging
import shutil
import time
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request

import pytest

from tests.integration.conftest import Images
from tests.integration.stack import BODY, Stack, docker, inspect, running, until
from tests.processes import OPENER, free_port

log = logging.getLogger(__name__)

pytestmark = pytest.mark.docker

LINE = "Forecasts of candlestick series."


def described(url: str) -> str:
    """What the service says of itself; nothing while it cannot."""
    gone = (URLError, OSError, HTTPException, ValueError)
    with suppress(*gone), OPENER.open(f"{url}/openapi.json", timeout=5) as answer:
        return str(json.load(answer)["info"]["description"])
    return ""


def test_source_change_is_reloaded(images: Images, tmp_path: Path) -> None:
    source = tmp_path / "kronos_api"
    shutil.copytree(images.tree / "kronos_api", source)
    tmp_path.chmod(0o755)
    port = free_port()
    settings = {
        "KRONOS_DEV_IMAGE": images.plain,
        "KRONOS_DEV_PORT": str(port),
        "KRONOS_SOURCE": str(source),
    }
    url = f"http://127.0.0.1:{port}"
    with running(Stack("", settings, file="docker-compose.dev.yml")) as stack:
        (container,) = stack.containers()
        published = inspect(container)["NetworkSettings"]["Ports"]["8000/tcp"]
        assert [place["HostIp"] for place in published] == ["127.0.0.1"]
        # Anyone on this machine may ask.
        headers = {"Content-Type": "application/json"}
        asked = Request(f"{url}/v1/predict/single", json.dumps(BODY).encode(), headers)
        with OPENER.open(asked, timeout=60) as answer:
            assert answer.status == 200
        changed = source / "app.py"
        changed.write_text(changed.read_text("utf-8").replace(LINE, "A changed line."))
        began = time.monotonic()
        until(lambda: "A changed line." in described(url), 180, docker("logs", container))
        log.info("live after %.1f s", time.monotonic() - began)
