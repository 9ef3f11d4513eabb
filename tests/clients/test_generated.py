"""Clients that public generators make from the OpenAPI document type-check and call the service.

The generators are installed from npm and PyPI, so these tests run only in CI.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.processes import OPENER, Service, services

HERE = Path(__file__).parent
pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(
        os.environ.get("CI") != "true", reason="installs generators from npm and PyPI: CI=true only"
    ),
]


def run(*command: str | Path, folder: Path, **environment: str) -> str:
    """Standard output of a command that must succeed in `folder`."""
    result = subprocess.run(
        command, cwd=folder, env=os.environ | environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with services(tmp_path_factory.mktemp("service")) as (started,):
        yield started


@pytest.fixture
def folder(service: Service, tmp_path: Path) -> Path:
    """An empty folder with the callers and the document that the service serves."""
    for path in HERE.iterdir():
        if path.is_file():
            shutil.copy(path, tmp_path)
    with OPENER.open(f"{service.url}/openapi.json", timeout=30) as response:
        (tmp_path / "openapi.json").write_bytes(response.read())
    return tmp_path


def check(output: str) -> None:
    """What a caller printed of the responses it got."""
    printed: dict[str, Any] = json.loads(output)
    assert len(printed["close"]) == len(printed["median"]) == 2
    assert all(math.isfinite(price) for price in printed["close"] + printed["median"])
    assert printed["series"] == ["a"]
    assert printed["code"] == "INVALID_INPUT"
    assert printed["ready"] == "ok"


@pytest.mark.skipif(shutil.which("npm") is None, reason="no npm here (Debian: nodejs, npm)")
def test_typescript_client_type_checks_and_calls(service: Service, folder: Path) -> None:
    run("npm", "install", "--no-audit", "--no-fund", "--no-package-lock", folder=folder)
    programs = folder / "node_modules" / ".bin"
    run(programs / "openapi-typescript", "openapi.json", "-o", "schema.d.ts", folder=folder)
    options = ["--strict", "--module", "nodenext", "--target", "es2022", "--types", "node"]
    run(programs / "tsc", *options, "--noEmitOnError", "call.ts", folder=folder)
    check(run("node", "call.js", service.url, folder=folder))


def test_python_client_type_checks_and_calls(service: Service, folder: Path) -> None:
    python = folder / "venv" / "bin" / "python"
    run(sys.executable, "-m", "venv", "venv", folder=folder)
    run(python, "-m", "pip", "install", "--quiet", "-r", "requirements.txt", folder=folder)
    # Its own code is formatted by ruff, which it looks for on the PATH.
    path = f"{python.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    generate = (python.parent / "openapi-python-client", "generate", "--meta", "none")
    arguments = ("--path", "openapi.json", "--output-path", "generated_client")
    run(*generate, *arguments, folder=folder, PATH=path)
    # The generator's own client.py does not pass mypy: types are checked through it, not in it.
    mypy = (python, "-m", "mypy", "--follow-imports", "silent")
    run(*mypy, "--strict", "call.py", folder=folder)
    generated = folder / "generated_client"
    run(*mypy, *generated.glob("models/*.py"), *generated.glob("api/*/*.py"), folder=folder)
    check(run(python, "call.py", service.url, folder=folder))
