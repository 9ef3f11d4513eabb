"""Alerts and receivers: tested, explained, and about metrics that exist."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from scripts import dashboards

ROOT = Path(__file__).resolve().parents[1]
MONITORING = ROOT / "monitoring"
RULES = sorted((MONITORING / "prometheus" / "rules").glob("*.yml"))
TESTS = sorted((MONITORING / "prometheus" / "tests").glob("*.yml"))
DASHBOARDS = sorted((MONITORING / "grafana" / "dashboards").glob("*.json"))
START = MONITORING / "alertmanager" / "start"
ANNOTATIONS = {"summary", "description", "runbook", "runbook_url", "dashboard_url"}
RECEIVERS = {
    "ALERT_EMAIL_TO": "operators@example.org",
    "ALERT_EMAIL_FROM": "kronos@example.org",
    "ALERT_SMTP_SERVER": "mail.example.org:587",
    "ALERT_SMTP_USER": "kronos",
    "ALERT_SMTP_PASSWORD": 'it\'s: "secret" #1 \\',
    "ALERT_SLACK_URL": "https://hooks.example.org/services/secret",
    "ALERT_SLACK_CHANNEL": "#operations",
    "ALERT_WEBHOOK_URL": "https://example.org/hook?token='1'",
    "ALERT_WATCHDOG_URL": "https://example.org/watchdog",
}

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="no promtool (Debian: prometheus)"
)
needs_amtool = pytest.mark.skipif(
    shutil.which("amtool") is None, reason="no amtool (Debian: prometheus-alertmanager)"
)


def alerts() -> list[dict[str, Any]]:
    """All alerting rules."""
    loaded = [yaml.safe_load(path.read_text("utf-8")) for path in RULES]
    rules = [rule for file in loaded for group in file["groups"] for rule in group["rules"]]
    return [rule for rule in rules if "alert" in rule]


def watched(path: Path) -> set[str]:
    """Metrics of the service that a file names."""
    named = re.findall(r"\b(kronos_(?!test)\w+)\b", path.read_text("utf-8"))
    return {re.sub(r"_(bucket|count|sum)$", "", name) for name in named}


def test_every_alert_has_a_severity_texts_and_links() -> None:
    for rule in alerts():
        name, annotations = rule["alert"], rule["annotations"]
        assert rule["labels"]["severity"] in ("critical", "warning", "none"), name
        assert set(annotations) - {"container"} == ANNOTATIONS, name
        assert annotations["runbook"] == f"docs/runbooks/{name}.md"
        assert annotations["runbook_url"].endswith(f"/{name}/")
        # An address alone does not name the container to look at.
        about_a_replica = "$labels.instance" in annotations["summary"]
        assert ("container" in annotations) == about_a_replica, name


def test_every_alert_fires_and_clears_in_a_test() -> None:
    text = "".join(path.read_text("utf-8") for path in TESTS)
    fired = set(re.findall(r'kronos_test:firing\{alertname="(\w+)"', text))
    assert fired == {rule["alert"] for rule in alerts()} - {"Watchdog"}
    assert "- alertname: Watchdog" in text


@pytest.mark.parametrize(
    "path", [*RULES, *TESTS, *DASHBOARDS], ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_metrics_that_are_watched_exist(path: Path) -> None:
    page = (ROOT / "docs" / "monitoring.md").read_text("utf-8")
    assert watched(path) <= set(re.findall(r"^\| `(kronos_\w+)` \|", page, re.MULTILINE))


# Windows of hours take seconds to evaluate.
LONG = {"service", "slo"}


@needs_promtool
@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=[pytest.mark.slow] if path.stem in LONG else [])
        for path in TESTS
    ],
)
def test_alerts_fire_when_they_should_and_only_then(path: Path) -> None:
    done = subprocess.run(["promtool", "test", "rules", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def rendered(folder: Path, **settings: str) -> Any:
    """Alertmanager's configuration, as its container writes it from `settings`."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ALERT_")}
    subprocess.run([START, "--render", folder], env=clean | settings, check=True)
    return yaml.safe_load((folder / "alertmanager.yml").read_text("utf-8"))


def integrations(config: Any) -> dict[str, set[str]]:
    """The ways in which each receiver sends."""
    return {one["name"]: set(one) - {"name"} for one in config["receivers"]}


def test_critical_alerts_go_to_every_receiver(tmp_path: Path) -> None:
    config = rendered(tmp_path, **RECEIVERS)
    chat = {"slack_configs", "webhook_configs"}
    assert integrations(config) == {
        "critical": {"email_configs", *chat},
        "warning": chat,
        "watchdog": {"webhook_configs"},
    }
    critical = config["receivers"][0]
    assert critical["webhook_configs"][0]["url"] == RECEIVERS["ALERT_WEBHOOK_URL"]
    (email,) = critical["email_configs"]
    assert Path(email["auth_password_file"]).read_text("utf-8") == RECEIVERS["ALERT_SMTP_PASSWORD"]
    (chat_config,) = critical["slack_configs"]
    assert Path(chat_config["api_url_file"]).read_text("utf-8") == RECEIVERS["ALERT_SLACK_URL"]
    assert {path.stat().st_mode & 0o077 for path in tmp_path.iterdir()} == {0}


def test_warnings_go_by_mail_where_there_is_no_chat(tmp_path: Path) -> None:
    mail = {name: value for name, value in RECEIVERS.items() if "SMTP" in name or "EMAIL" in name}
    assert integrations(rendered(tmp_path, **mail))["warning"] == {"email_configs"}
    assert set().union(*integrations(rendered(tmp_path)).values()) == set()


def test_incomplete_mail_settings_are_refused(tmp_path: Path) -> None:
    done = subprocess.run(
        [START, "--render", tmp_path],
        env=os.environ | {"ALERT_EMAIL_TO": "operators@example.org"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "ALERT_SMTP_SERVER" in done.stderr


def test_dashboards_are_those_of_the_script() -> None:
    assert dashboards.main(["--check"]) == 0


def test_every_panel_has_a_unit_a_description_and_queries() -> None:
    panels = [panel for board in dashboards.DASHBOARDS for panel in board.panels]
    assert len(panels) > 40
    for panel in panels:
        assert panel.unit, panel.title
        assert panel.description.endswith("."), panel.title
        assert panel.queries, panel.title


def test_links_of_alerts_lead_to_dashboards() -> None:
    boards = {f"kronos-{board.name}": board for board in dashboards.DASHBOARDS}
    for rule in alerts():
        board, _, query = rule["annotations"]["dashboard_url"].rpartition("/")[2].partition("?")
        assert board in boards
        for name in re.findall(r"var-(\w+)=", query):
            assert name in boards[board].variables


@needs_amtool
def test_rendered_example_is_that_of_the_template(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "runbooks" / "monitoring.md").read_text("utf-8")
    subject, _, text = page.partition("```text\nSubject: ")[2].partition("```")[0].partition("\n\n")
    (rule,) = [rule for rule in alerts() if rule["alert"] == "KronosWorkerDied"]
    labels = {"alertname": rule["alert"], **rule["labels"], "instance": "172.28.0.4:8000"}
    values = {"$labels.instance": labels["instance"], "$value | humanize": "1"}
    values |= {"$externalLabels.grafana": "http://localhost:3000"}
    values |= {"$externalLabels.runbooks": "http://localhost:8001/runbooks"}
    annotations = rule["annotations"] | {"container": "kronos-kronos-api-2"}
    for name, text_of in annotations.items():
        for variable, value in values.items():
            text_of = text_of.replace(f"{{{{ {variable} }}}}", value)
        annotations[name] = text_of
    alert = {"status": "firing", "labels": labels, "annotations": annotations}
    alert |= {"startsAt": "2026-11-26T03:00:00Z", "endsAt": "0001-01-01T00:00:00Z"}
    data = {"status": "firing", "alerts": [alert], "commonLabels": labels}
    data |= {"externalURL": "http://localhost:9093", "receiver": "critical"}
    (tmp_path / "data.json").write_text(json.dumps(data), "utf-8")
    shown = {name: template(name, tmp_path / "data.json") for name in ("subject", "text")}
    assert shown == {"subject": subject, "text": text}


def template(name: str, data: Path) -> str:
    """A template of notifications, rendered."""
    done = subprocess.run(
        [
            *("amtool", "template", "render"),
            f"--template.glob={MONITORING / 'alertmanager' / 'templates' / '*.tmpl'}",
            f'--template.text={{{{ template "kronos.{name}" . }}}}',
            f"--template.data={data}",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@needs_amtool
def test_alerts_take_the_route_of_their_severity(tmp_path: Path) -> None:
    rendered(tmp_path, **RECEIVERS)
    file = f"--config.file={tmp_path / 'alertmanager.yml'}"
    subprocess.run(["amtool", "check-config", tmp_path / "alertmanager.yml"], check=True)
    for rule in alerts():
        labels = [f"alertname={rule['alert']}", f"severity={rule['labels']['severity']}"]
        done = subprocess.run(
            ["amtool", "config", "routes", "test", file, *labels],
            capture_output=True,
            text=True,
            check=True,
        )
        expected = "watchdog" if rule["alert"] == "Watchdog" else rule["labels"]["severity"]
        assert done.stdout.split() == [expected]
