"""The built wheel, installed from the lock and away from the source tree, answers a forecast."""

import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from urllib.request import ProxyHandler, Request, build_opener

import pytest

ROOT = Path(__file__).resolve().parent.parent
OPENER = build_opener(ProxyHandler({}))
pytestmark = pytest.mark.slow


def run(*command: str | Path) -> str:
    """The output of a command that must succeed."""
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet")
    run(*pip, "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Path:
    """The bin folder of a fresh environment with the wheel and what the service needs."""
    venv = tmp_path_factory.mktemp("installed") / "an environment"
    run(ROOT / "scripts" / "setup", "runtime", "--venv", venv, "--install", wheel)
    return venv / "bin"


@pytest.fixture
def service(programs: Path, tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A service on the bundled checkpoint, started in an empty folder: its URL and process."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    environment |= {"KRONOS_HOST": "127.0.0.1", "KRONOS_PORT": str(port)}
    command = (programs / "kronos-api", "serve")
    with subprocess.Popen(command, cwd=tmp_path, env=environment) as process:
        try:
            yield f"http://127.0.0.1:{port}", process
        finally:
            process.kill()


def wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, "the service ended before it was ready"
        try:
            with OPENER.open(f"{url}/v1/readyz", timeout=5):
                return
        except (OSError, HTTPException):
            time.sleep(0.2)
    pytest.fail("the service was not ready in time")


def test_holds_the_checkpoint_and_nothing_strange(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assets = "kronos_api/assets/kronos-demo"
    for part in ("model", "tokenizer"):
        assert f"{assets}/{part}/config.json" in names
        assert f"{assets}/{part}/model.safetensors" in names
    assert "kronos_api/py.typed" in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"kronos_api"}


def test_requirements_agree(programs: Path) -> None:
    assert "No broken requirements" in run(programs / "python", "-m", "pip", "check")


def test_version(programs: Path) -> None:
    assert run(programs / "kronos-api", "--version").strip() == "kronos-api 0.1.0"


def test_serves_a_forecast(service: tuple[str, subprocess.Popen[bytes]]) -> None:
    url, process = service
    wait_until_ready(url, process)
    body = (ROOT / "examples" / "request-single.json").read_bytes()
    request = Request(f"{url}/v1/predict/single", body, {"Content-Type": "application/json"})
    with OPENER.open(request, timeout=60) as response:
        answer = json.load(response)
    assert len(json.loads(body)["candles"]) == 400
    assert len(answer["prediction"]) == 24
    for candle in answer["prediction"]:
        values = [candle[name] for name in ("open", "high", "low", "close", "volume", "amount")]
        assert all(math.isfinite(value) for value in values)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 0
