from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kronos_api import cores
from kronos_api.cores import bound_spinning, usable_cores

SPINNING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


@pytest.fixture(autouse=True)
def _eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "_affinity", lambda: 8)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("200000 100000\n", 2),
        ("150000 100000\n", 1),
        ("50000 100000\n", 1),
        ("6400000 100000\n", 8),
        ("max 100000\n", 8),
        ("nonsense\n", 8),
    ],
)
def test_cpu_limit_of_cgroup_version_2(tmp_path: Path, written: str, expected: int) -> None:
    (tmp_path / "cpu.max").write_text(written)
    assert usable_cores(tmp_path) == expected


@pytest.mark.parametrize(("quota", "expected"), [("300000", 3), ("-1", 8)])
def test_cpu_limit_of_cgroup_version_1(tmp_path: Path, quota: str, expected: int) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert usable_cores(tmp_path) == expected


def test_without_a_cgroup_affinity_counts(tmp_path: Path) -> None:
    assert usable_cores(tmp_path) == 8


def test_at_least_one_core_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert usable_cores() >= 1


@pytest.mark.parametrize("module", ["kronos_api.app", "kronos_api.checkpoints.loader"])
def test_spinning_is_bounded_before_torch_is_imported(module: str) -> None:
    """OpenMP reads the variable once. The finder ends the process where torch is imported."""
    script = f"""
import os, sys
class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "torch":
            print(os.environ.get("GOMP_SPINCOUNT"), flush=True)
            os._exit(0)
sys.meta_path.insert(0, Finder)
import {module}
"""
    environment = {k: v for k, v in os.environ.items() if k not in SPINNING}
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert result.stdout == "10000\n"


@pytest.mark.parametrize(
    ("name", "value"), [("OMP_WAIT_POLICY", "PASSIVE"), ("GOMP_SPINCOUNT", "7")]
)
def test_spinning_of_the_environment_takes_precedence(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    for variable in SPINNING:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv(name, value)
    bound_spinning()
    assert os.environ.get("GOMP_SPINCOUNT") == (value if name == "GOMP_SPINCOUNT" else None)
