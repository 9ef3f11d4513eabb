"""Alerts and dashboard: tested, explained, and about metrics that there are."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
RULES = ROOT / "monitoring" / "prometheus" / "alerts.yml"
TESTS = ROOT / "monitoring" / "prometheus" / "alerts.test.yml"
DASHBOARD = ROOT / "monitoring" / "grafana" / "dashboards" / "kronos-api.json"


def found(pattern: str, path: Path) -> list[str]:
    return re.findall(pattern, path.read_text("utf-8"), re.MULTILINE)


ALERTS = found(r"- alert: (\w+)$", RULES)


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    assert len(ALERTS) == len(set(ALERTS))
    assert found(r"^## (\w+)$", ROOT / "docs" / "runbooks.md") == ALERTS
    assert found(r"runbook: docs/runbooks\.md#(\w+)$", RULES) == [name.lower() for name in ALERTS]


def test_every_alert_fires_in_a_test() -> None:
    fired = re.findall(
        r"- alertname: (\w+)\n +eval_time: \w+\n +exp_alerts:\n +- exp_labels",
        TESTS.read_text("utf-8"),
    )
    assert set(fired) == set(ALERTS)


@pytest.mark.parametrize("path", [RULES, TESTS, DASHBOARD], ids=lambda path: path.name)
def test_metrics_that_are_watched_exist(path: Path) -> None:
    described = found(r"^\| `(kronos_\w+)` \|", ROOT / "docs" / "monitoring.md")
    for name in set(found(r"\b(kronos_\w+)\b", path)):
        assert re.sub(r"_(bucket|count|sum)$", "", name) in described


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool (Debian: prometheus)")
def test_alerts_fire_when_they_should_and_only_then() -> None:
    done = subprocess.run(["promtool", "test", "rules", TESTS], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
