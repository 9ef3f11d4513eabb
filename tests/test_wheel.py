"""The built wheel, installed from the lock and away from the source tree, answers a forecast."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from urllib.request import Request

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.processes import OPENER, ROOT, build_wheel, free_port, run

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Path:
    """The bin folder of a fresh environment with the wheel and what the service needs."""
    venv = tmp_path_factory.mktemp("installed") / "an environment"
    run(ROOT / "scripts" / "setup", "runtime", "--newest-pip", "--venv", venv, "--install", wheel)
    return venv / "bin"


@pytest.fixture
def service(programs: Path, tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A service on the bundled checkpoint, started in an empty folder: its URL and process."""
    port = free_port()
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


def test_holds_the_checkpoint_the_pages_and_nothing_strange(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assets = "kronos_api/assets/kronos-demo"
    for part in ("model", "tokenizer"):
        assert f"{assets}/{part}/config.json" in names
        assert f"{assets}/{part}/model.safetensors" in names
    for page in ("assets/docs/start.js", "playground/index.html", "playground/sample.csv"):
        assert f"kronos_api/{page}" in names
    assert "kronos_api/py.typed" in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"kronos_api"}


def locked(*names: str) -> set[str]:
    """The packages, as name==version, that requirements/`names` pin for this machine."""
    pins = set()
    for name in names:
        for line in (ROOT / "requirements" / f"{name}.txt").read_text().splitlines():
            if re.match(r"[A-Za-z0-9]", line):
                requirement = Requirement(line.rstrip(" \\"))
                if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                    pins.add(f"{canonicalize_name(requirement.name)}{requirement.specifier}")
    return pins


def frozen(python: str | Path) -> set[str]:
    """The installed packages as name==version, without pip and this project."""
    listed = json.loads(run(python, "-m", "pip", "list", "--format", "json"))
    pins = {f"{canonicalize_name(found['name'])}=={found['version']}" for found in listed}
    return {pin for pin in pins if pin.split("==")[0] not in ("pip", "kronos-api")}


def test_newest_pip_installs_the_lock_exactly(programs: Path) -> None:
    assert frozen(programs / "python") == locked("runtime", "build", "torch")
    assert "No broken requirements" in run(programs / "python", "-m", "pip", "check")


def test_bundled_pip_installed_the_test_lock() -> None:
    """The environment that runs the tests; a developer may have added packages to it."""
    assert locked("test", "oracle", "torch") <= frozen(sys.executable)
    check = subprocess.run(
        [sys.executable, "-m", "pip", "check"], capture_output=True, text=True
    ).stdout
    # The reference implementation pins releases that are older than ours.
    others = [line for line in check.splitlines() if not line.startswith("kronos-model-arch ")]
    assert others in ([], ["No broken requirements found."])


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
