"""deploy.sh where there is no engine: what it refuses, and how it says so."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "deploy.sh"


def deploy(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return run(SCRIPT, *arguments, **variables)


def run(script: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [script, *arguments],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["staging"], "does not know 'staging'"),
        (["--replicas"], "--replicas needs a value"),
        (["--replicas", "0"], "a number from 1 to 999, not '0'"),
        (["--replicas", "two"], "a number from 1 to 999, not 'two'"),
        (["--rollback", "--image", "x"], "two ways to name an image"),
        (["--rollback", "--push", "registry.example"], "pushes what is built here"),
        (["dev", "--replicas", "2"], "dev takes no option but --dry-run"),
    ],
)
def test_arguments_that_make_no_sense(arguments: list[str], told: str) -> None:
    outcome = deploy(*arguments)
    assert (outcome.returncode, outcome.stdout) == (2, "")
    assert told in outcome.stderr
    assert len(outcome.stderr.splitlines()) == 1


def test_a_time_that_is_none() -> None:
    outcome = deploy(DEPLOY_TIMEOUT="soon")
    assert outcome.returncode == 2
    assert "DEPLOY_TIMEOUT is a number of seconds, not 'soon'" in outcome.stderr


def test_help_tells_options_and_every_exit_status() -> None:
    outcome = deploy("--help")
    assert outcome.returncode == 0
    parse = re.search(r"^parse\(\) \{.*?^\}", SCRIPT.read_text("utf-8"), re.M | re.S)
    assert parse is not None
    for option in re.findall(r"--[a-z-]{4,}(?=\)| \|)", parse.group()):
        assert option in outcome.stdout or option == "--help"
    sources = [SCRIPT, *sorted((ROOT / "deploy" / "lib").glob("*.sh"))]
    text = "".join(source.read_text("utf-8") for source in sources)
    used = set(re.findall(r"\b(?:die|exit|status=)\s?([1-9]\d*)\b", text))
    told = {
        status
        for line in re.findall(r"^  ([\d, ]+)  ", outcome.stdout, re.M)
        for status in line.split(", ")
    }
    assert used - {"1"} <= told
    assert told - {"0"} <= used | {"2"}


@pytest.mark.parametrize("mode", ["dev", "prod"])
def test_without_an_engine_nothing_is_tried(mode: str, tmp_path: Path) -> None:
    for tool in ("bash", "env", "sed", "dirname"):
        found = subprocess.run(["which", tool], capture_output=True, text=True, check=True)
        (tmp_path / tool).symlink_to(found.stdout.strip())
    outcome = deploy(mode, PATH=str(tmp_path))
    assert outcome.returncode == 3
    assert outcome.stderr == "deploy  there is no docker command here\n"
    assert outcome.stdout == ""


@pytest.mark.skipif(shutil.which("docker") is None, reason="needs the docker command")
@pytest.mark.parametrize("mode", ["dev", "prod"])
def test_an_engine_that_does_not_answer(mode: str) -> None:
    outcome = deploy(mode, DOCKER_HOST="unix:///nonexistent")
    assert (outcome.returncode, outcome.stdout) == (3, "")
    assert "the Docker engine does not answer: " in outcome.stderr


DOCKER = """#!/bin/sh
case "$*" in
version*) echo 28.0.0 ;;
"compose version"*) echo 2.40.0 ;;
"buildx version") exit "${NO_BUILDX:-0}" ;;
"compose config"*) echo "$COMPOSE_PROJECT_NAME of $COMPOSE_FILE" ;;
*) exit 1 ;;
esac
"""


@pytest.fixture
def engine(tmp_path: Path) -> dict[str, str]:
    """A docker command that answers what is asked before anything is done."""
    docker = tmp_path / "docker"
    docker.write_text(DOCKER)
    docker.chmod(0o755)
    return {"PATH": f"{tmp_path}:{os.environ['PATH']}"}


def test_development_keeps_away_from_production(engine: dict[str, str]) -> None:
    production = {"COMPOSE_PROJECT_NAME": "kronos", "COMPOSE_FILE": "docker-compose.yml"}
    for chosen, project in (({}, "kronos-dev"), ({"COMPOSE_DEV_PROJECT_NAME": "mine"}, "mine")):
        outcome = deploy("dev", "--dry-run", **engine, **production, **chosen)
        assert outcome.returncode == 0, outcome.stderr
        assert f"{project} of docker-compose.dev.yml" in outcome.stdout


def test_building_needs_buildx(engine: dict[str, str]) -> None:
    outcome = deploy("dev", "--dry-run", **engine, NO_BUILDX="1")
    assert outcome.returncode == 3
    assert "docker has no buildx plugin" in outcome.stderr


@pytest.mark.parametrize("mode", ["dev", "prod"])
def test_names_in_env_that_are_no_setting_are_reported(
    engine: dict[str, str], tmp_path: Path, mode: str
) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(ROOT / "deploy", tree / "deploy")
    for name in ("deploy.sh", ".env.example"):
        shutil.copy(ROOT / name, tree)
    example = (tree / ".env.example").read_text("utf-8")
    mistaken = (
        "KRONOS_RATE_LIMT_PER_MINUTE=5\nexport GUNICORN_WORKER = 2\n# KRONOS_COMMENT=1\n"
        "DEPLOY_TIMEOUTS=1\nKRONOS_ZZZZZZZZZZZZ=1\nHF_TOKEN=1\n"
    )
    (tree / ".env").write_text(example + mistaken)
    outcome = run(tree / "deploy.sh", mode, "--dry-run", **engine)
    assert [line for line in outcome.stderr.splitlines() if ".env" in line] == [
        f"deploy  .env: '{name}' is no setting and changes nothing{hint}"
        for name, hint in (
            ("KRONOS_RATE_LIMT_PER_MINUTE", "; did you mean KRONOS_RATE_LIMIT_PER_MINUTE?"),
            ("GUNICORN_WORKER", "; did you mean GUNICORN_WORKERS?"),
            ("DEPLOY_TIMEOUTS", "; did you mean DEPLOY_TIMEOUT?"),
            ("KRONOS_ZZZZZZZZZZZZ", ""),
        )
    ]
