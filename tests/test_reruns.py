"""Failed tests that talk to real processes are run once more; quick tests never are."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = """
import pytest

RUNS = {}

def run(name):
    RUNS[name] = RUNS.get(name, 0) + 1
    return RUNS[name]

@pytest.mark.process
def test_process():
    assert run("process") == 2

@pytest.mark.docker
def test_docker():
    assert run("docker") == 2

@pytest.mark.process
def test_fails_twice():
    assert run("fails_twice") == 3

def test_quick():
    assert run("quick") == 2
"""


@pytest.mark.parametrize("processes", ["0", "2"])
def test_second_pass_is_reported_as_flaky(tmp_path: Path, processes: str) -> None:
    for source in (ROOT / "pyproject.toml", ROOT / "tests" / "conftest.py"):
        shutil.copy(source, tmp_path)
    (tmp_path / "test_sample.py").write_text(SAMPLE)
    command = [sys.executable, "-m", "pytest", "-n", processes, "test_sample.py"]
    # Without this run's own options, such as the file for its results.
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    said = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True).stdout
    lines = said.splitlines()
    assert [line for line in lines if line.startswith("flaky: ")] == [
        "flaky: test_sample.py::test_docker",
        "flaky: test_sample.py::test_process",
    ], said
    failed = {line.split()[1] for line in lines if line.startswith("FAILED ")}
    assert failed == {"test_sample.py::test_fails_twice", "test_sample.py::test_quick"}, said
    assert "2 failed, 2 passed, 3 rerun" in lines[-1], said
