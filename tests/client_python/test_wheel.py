"""The wheel of the client: small, complete, and at home where nothing but httpx is installed."""

from __future__ import annotations

import json
import os
import re
import sys
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest

from tests.processes import ROOT, build_wheel, run, services

PROJECT = ROOT / "clients" / "python"
LARGEST = 100_000
pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(PROJECT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Path:
    """The interpreter of a fresh environment with the wheel."""
    folder = tmp_path_factory.mktemp("installed") / "venv"
    run(sys.executable, "-m", "venv", folder)
    interpreter = folder / "bin" / "python"
    try:
        run(interpreter, "-m", "pip", "install", "--quiet", wheel)
    except AssertionError as error:
        if re.search("No matching distribution found|connection error", str(error), re.IGNORECASE):
            pytest.skip("needs a package index that has httpx")
        raise
    return interpreter


def test_wheel_is_small_and_holds_the_package_alone(wheel: Path) -> None:
    assert wheel.stat().st_size < LARGEST
    names = set(zipfile.ZipFile(wheel).namelist())
    source = PROJECT / "src"
    package = {str(path.relative_to(source)) for path in source.rglob("*.py")}
    packed = {name for name in names if ".dist-info/" not in name}
    assert packed == package | {"kronos_api_client/py.typed"}
    assert {name.rpartition("/")[2] for name in names - packed} >= {"METADATA", "LICENSE"}


def test_wheel_needs_httpx_alone(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        (name,) = [name for name in file.namelist() if name.endswith("/METADATA")]
        metadata = HeaderParser().parsestr(file.read(name).decode())
    requirements = metadata.get_all("Requires-Dist", [])
    assert [one for one in requirements if "extra ==" not in one] == ["httpx<1,>=0.27"]
    assert set(metadata.get_all("Provides-Extra", [])) == {"pandas", "plot", "polars"}
    assert metadata["Requires-Python"] == ">=3.11"


def test_imports_without_pandas_polars_and_torch(python: Path) -> None:
    listed = json.loads(run(python, "-m", "pip", "list", "--format", "json"))
    installed = {package["name"].lower() for package in listed}
    assert installed & {"torch", "pandas", "polars", "numpy", "kronos-api"} == set()
    (version,) = [one["version"] for one in listed if one["name"] == "kronos-api-client"]
    code = "import kronos_api_client as client; print(client.__version__)"
    assert run(python, "-I", "-W", "error", "-c", code).strip() == version


def test_calls_a_service_without_frames(python: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from kronos_api_client import KronosClient;"
        "client = KronosClient(sys.argv[1]); print(client.ready().status, client.models()['demo'])"
    )
    with services(tmp_path) as (service,):
        said = run(python, "-I", "-W", "error", "-c", code, service.url, NO_PROXY="127.0.0.1")
    assert said.split() == ["ok", "True"]


@pytest.mark.skipif(os.environ.get("CI") != "true", reason="installs polars: CI=true only")
def test_polars_frames(python: Path) -> None:
    install = (python, "-m", "pip", "install", "--quiet")
    run(*install, "polars", "pandas", "pytest")
    options = ("-q", "--noconftest", "-c", os.devnull, f"--rootdir={ROOT}", "-W", "error")
    tests = ROOT / "tests" / "client_python" / "test_polars.py"
    pytest_command = (python, "-m", "pytest", "-p", "no:cacheprovider", *options, tests)
    said = run(*pytest_command, PYTHONPATH=str(ROOT))
    assert re.search(r"\d+ passed", said)
    assert "skipped" not in said
