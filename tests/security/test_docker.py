"""The running service among containers, which Docker's embedded nameserver identifies."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

pytestmark = pytest.mark.docker

ROOT = Path(__file__).resolve().parents[2]
IMAGE = f"python:{sys.version_info.major}.{sys.version_info.minor}-slim"
NETWORK = f"kronos-test-{os.getpid()}"
SUBNET = "10.213.91"
ASK = """
import json, sys, urllib.error, urllib.request
try:
    print(urllib.request.urlopen(sys.argv[1], timeout=10).status)
except urllib.error.HTTPError as error:
    print(error.code, json.load(error)["error"]["code"])
"""
ASKS = 5
"""Attempts, at most, while DNS does not identify the caller within its 250 ms."""


def docker(*parts: str) -> str:
    done = subprocess.run(["docker", *parts], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def succeeds(*command: str) -> bool:
    return subprocess.run(command, capture_output=True).returncode == 0


def name(short: str) -> str:
    """A container's name that nothing else on this engine has."""
    return f"{NETWORK}-{short}"


@contextmanager
def container(short: str, last: int, *command: str, options: tuple[str, ...] = ()) -> Iterator[str]:
    """A container at the address that ends in `last`; gone afterwards."""
    place = ("--network", NETWORK, "--ip", f"{SUBNET}.{last}", "--init")
    docker("run", "-d", "--name", name(short), *place, *options, IMAGE, *command)
    try:
        yield name(short)
    finally:
        docker("rm", "-f", name(short))


def status(caller: str, path: str = "/v1/models") -> int:
    url = f"http://{SUBNET}.2:8000{path}"
    for _ in range(ASKS):
        output = docker("exec", caller, "python", "-c", ASK, url)
        if output != "503 CALLER_UNKNOWN":
            break
    return int(output.split()[0])


@pytest.fixture(scope="module")
def service() -> Iterator[None]:
    """`kronos-api serve` in a container, from this tree and this Python's packages."""
    if shutil.which("docker") is None or not succeeds("docker", "info"):
        pytest.skip("needs a Docker engine")
    if not succeeds("docker", "image", "inspect", IMAGE):
        pytest.skip(f"needs the image {IMAGE}")
    packages = sysconfig.get_path("purelib")
    settings = {
        "PYTHONPATH": "/packages:/source",
        "PYTHONDONTWRITEBYTECODE": "1",
        "KRONOS_CONTAINER_WHITELIST": f"{name('named')},web,alias",
        "KRONOS_TORCH_THREADS": "1",
    }
    options = ["-v", f"{packages}:/packages:ro", "-v", f"{ROOT}:/source:ro"]
    for variable, value in settings.items():
        options += ["-e", f"{variable}={value}"]
    docker("network", "create", "--subnet", f"{SUBNET}.0/24", NETWORK)
    try:
        command = ("python", "-m", "kronos_api", "serve")
        with container("api", 2, *command, options=tuple(options)) as api:
            deadline = time.monotonic() + 180
            while "model_ready" not in docker("logs", api):
                assert time.monotonic() < deadline, docker("logs", api)
                time.sleep(0.5)
            yield
    finally:
        docker("network", "rm", NETWORK)


@pytest.mark.usefixtures("service")
def test_containers_are_identified_by_name_service_and_alias() -> None:
    sleep = ("sleep", "infinity")
    with ExitStack() as running:

        def start(short: str, last: int, *options: str) -> str:
            return running.enter_context(container(short, last, *sleep, options=options))

        allowed = [start("named", 10), start("aliased", 11, "--network-alias", "alias")]
        allowed += [start(f"web-{n}", 20 + n, "--network-alias", "web") for n in (1, 2, 3)]
        refused = [start("unlisted", 30), start("host", 31, "--hostname", "web-9")]
        assert {caller: status(caller) for caller in allowed} == dict.fromkeys(allowed, 200)
        assert {caller: status(caller) for caller in refused} == dict.fromkeys(refused, 403)
        assert status(refused[0], "/health") == 200


@pytest.mark.usefixtures("service")
def test_unlisted_container_on_a_freed_address_is_refused() -> None:
    with container("named", 40, "sleep", "infinity") as caller:
        assert status(caller) == 200
    with container("thief", 40, "sleep", "infinity") as thief:
        time.sleep(2)
        assert status(thief) == 403
