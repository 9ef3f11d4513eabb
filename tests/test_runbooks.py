"""Runbooks: one page an alert, and commands, links, metrics and settings that exist."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from kronos_api.config import Settings, variable
from tests.test_monitoring import ROOT, RULES, alerts, watched

PAGES = sorted((ROOT / "docs" / "runbooks").glob("*.md"))
NAMES = {rule["alert"] for rule in alerts()}
PROCEDURES = {"README", "deployment", "incidents", "maintenance", "monitoring"}
SECTIONS = ["Impact", "Diagnosis", "Mitigation", "Verification", "Limit"]
BLOCK = re.compile(r"^ *```bash\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
MONITORING = "monitoring/docker-compose.yml"


def commands(page: Path) -> list[str]:
    """The lines of all blocks of commands."""
    blocks = BLOCK.findall(page.read_text("utf-8"))
    return [line.strip() for block in blocks for line in block.splitlines()]


def services(file: str) -> set[str]:
    """The services of a compose file."""
    return set(yaml.safe_load((ROOT / file).read_text("utf-8"))["services"])


def test_every_alert_has_a_page_and_every_page_an_alert() -> None:
    assert {page.stem for page in PAGES} - PROCEDURES == NAMES
    index = (ROOT / "docs" / "runbooks" / "README.md").read_text("utf-8")
    assert set(re.findall(r"^\| \[(\w+)\]\(\1\.md\) \|", index, re.MULTILINE)) == NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_page_of_an_alert_is_complete(name: str) -> None:
    page = ROOT / "docs" / "runbooks" / f"{name}.md"
    text = page.read_text("utf-8")
    assert text.startswith(f"# {name}\n")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == SECTIONS
    diagnosis, _, rest = text.partition("## Mitigation")
    _, _, verification = rest.partition("## Verification")
    assert "```bash" in diagnosis
    assert "monitoring/query" in verification


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_name_what_exists(page: Path) -> None:
    options = re.findall(r"--[a-z][a-z-]+", (ROOT / "deploy.sh").read_text("utf-8"))
    lines = commands(page)
    checked = subprocess.run(["bash", "-n"], input="\n".join(lines), text=True, capture_output=True)
    assert checked.returncode == 0, checked.stderr
    for line in lines:
        words = shlex.split(line.replace("$(", " ").replace(")", " ") if "$(" in line else line)
        if words[0] == "./deploy.sh":
            assert {word for word in words if word.startswith("--")} <= set(options), line
        if words[:2] == ["docker", "compose"]:
            check_compose(words, line)
        for word in words:
            if (
                re.match(r"(monitoring|deploy|docs|scripts)/[\w./-]+\w$", word)
                and "tls" not in word
            ):
                assert (ROOT / word).exists(), line


def check_compose(words: list[str], line: str) -> None:
    """The file exists, and services that the command names are in it."""
    file = MONITORING if MONITORING in words else "docker-compose.yml"
    known = services(file)
    command = next(
        (at for at, word in enumerate(words) if word in ("logs", "ps", "exec", "up", "run")), None
    )
    if command is None:
        return
    end = words.index("|") if "|" in words else len(words)
    named = [word for word in words[command + 1 : end] if not word.startswith("-")]
    values = {"50", "20", "15m", "10m", "30m", "1h"}  # of options
    named = [word for word in named if word not in values]
    if words[command] in ("exec", "run"):
        named = named[:1]
    assert set(named) <= known, line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_metrics_and_settings_of_a_page_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    described = (ROOT / "docs" / "monitoring.md").read_text("utf-8")
    metrics = set(re.findall(r"^\| `(kronos_\w+)` \|", described, re.MULTILINE))
    assert {name for name in watched(page) if name != "kronos_api"} <= metrics
    recorded = set(re.findall(r"record: (\S+)", RULES_TEXT))
    assert set(re.findall(r"kronos:\w+:\w+", text)) <= recorded
    settings = {variable(name) for name in Settings.model_fields}
    settings |= set(re.findall(r"^([A-Z_]+)=", EXAMPLE, re.MULTILINE))
    assert set(re.findall(r"\b(?:KRONOS|GUNICORN|ALERT)_[A-Z_]+\b", text)) <= settings


RULES_TEXT = "".join(path.read_text("utf-8") for path in RULES)
EXAMPLE = (ROOT / ".env.example").read_text("utf-8")
