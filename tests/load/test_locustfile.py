"""The load on a real service that runs the demonstration checkpoint."""

from __future__ import annotations

import csv
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from kronos_api.security.api_keys import new_key
from tests.processes import OPENER, ROOT, services, without_settings

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(find_spec("locust") is None, reason="needs locust (the extra load)"),
]

CALLERS = ("load-1", "load-2")
QUOTA = 5


def test_answers_and_refusals_of_several_callers_are_counted(tmp_path: Path) -> None:
    made = [new_key(name, ["predict"]) for name in CALLERS]
    (tmp_path / "api-keys").write_text("".join(f"{line.line()}\n" for _, line in made))
    (tmp_path / "load-keys").write_text("".join(f"the key: {key}\n" for key, _ in made))
    command: list[str | Path] = [sys.executable, "-m", "locust", "--locustfile"]
    command += [
        ROOT / "tests/load/locustfile.py",
        "--headless",
        "--load",
        "burst",
        "--rate",
        "20",
        "--seconds",
        "2",
    ]
    command += ["--history", "8", "--horizon", "2", "--keys", tmp_path / "load-keys"]
    settings: dict[str, Any] = {
        "API_KEYS_FILE": tmp_path / "api-keys",
        "RATE_LIMIT_PER_MINUTE": str(QUOTA),
    }
    with services(tmp_path, **settings) as (service,):
        ended = subprocess.run(
            [*command, "--host", service.url, "--csv", "run", "--html", "report.html"],
            cwd=tmp_path,
            env=without_settings(),
            capture_output=True,
            text=True,
            timeout=120,
        )
        with OPENER.open(f"{service.url}/metrics", timeout=30) as answer:
            metrics = answer.read().decode()
    assert ended.returncode == 0, ended.stdout + ended.stderr
    with (tmp_path / "run_stats.csv").open(newline="") as file:
        rows = {row["Name"]: int(row["Request Count"]) for row in csv.DictReader(file)}
    assert rows.get("single", 0) + 4 * rows.get("batch", 0) >= QUOTA
    assert rows["refused: 429 RATE_LIMITED"] > 0
    assert "single: " in ended.stdout
    assert "refused: 429 RATE_LIMITED; 0 failed" in ended.stdout
    assert "refused: 429" in (tmp_path / "report.html").read_text("utf-8")
    assert all(f'container="{name}"' in metrics for name in CALLERS)
