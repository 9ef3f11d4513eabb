"""deploy.sh where there is no engine: what it refuses, and how it says so."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from kronos_api.config.renamed import REMOVAL, RENAMED

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
    ("arguments", "message"),
    [
        (["staging"], "unknown argument 'staging'"),
        (["--replicas"], "--replicas needs a value"),
        (["--replicas", "0"], "a number from 1 to 999, not '0'"),
        (["--replicas", "two"], "a number from 1 to 999, not 'two'"),
        (["--rollback", "--image", "x"], "--rollback and --image exclude each other"),
        (
            ["--rollback", "--push", "registry.example"],
            "--push cannot be combined with --image",
        ),
        (["dev", "--replicas", "2"], "dev accepts --dry-run alone"),
        (["dev", "--status"], "dev accepts --dry-run alone"),
        (["--status", "--dry-run"], "--status cannot be combined with other options"),
    ],
)
def test_invalid_arguments_exit_with_2(arguments: list[str], message: str) -> None:
    outcome = deploy(*arguments)
    assert (outcome.returncode, outcome.stdout) == (2, "")
    assert message in outcome.stderr
    assert len(outcome.stderr.splitlines()) == 1


def test_timeout_must_be_a_number() -> None:
    outcome = deploy(DEPLOY_TIMEOUT="soon")
    assert outcome.returncode == 2
    assert "DEPLOY_TIMEOUT must be a number of seconds, such as 300, not 'soon'" in outcome.stderr


def test_help_lists_options_and_every_exit_status() -> None:
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
        for line in re.findall(r"^  (\d[\d, ]*)  ", outcome.stdout, re.M)
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
    assert outcome.stderr == "deploy  docker not found: install Docker Engine 25.0 or newer\n"
    assert outcome.stdout == ""


@pytest.mark.skipif(shutil.which("docker") is None, reason="needs the docker command")
@pytest.mark.parametrize("mode", ["dev", "prod"])
def test_an_engine_that_does_not_answer(mode: str) -> None:
    outcome = deploy(mode, DOCKER_HOST="unix:///nonexistent")
    assert (outcome.returncode, outcome.stdout) == (3, "")
    assert "the Docker engine does not answer: " in outcome.stderr


# It knows the image kronos-api:current alone, and writes down what it was asked to do.
DOCKER = r"""#!/bin/bash
echo "${*//$'\n'/ }" >>"$CALLS"
case "$*" in
version*) echo 28.0.0 ;;
"compose version"*) echo 2.40.0 ;;
"buildx version") exit "${NO_BUILDX:-0}" ;;
"compose --project-directory . --project-name value"*)
    name=$(sed 's/.*{\([A-Z_]*\)-}.*/\1/')
    echo "=${!name}"
    ;;
"compose config --services") printf '%s\n' kronos-api redis nginx ;;
"compose config --format json") cat "$MODEL" ;;
"compose config --hash"*) echo "kronos-api 0123" ;;
"compose config --quiet") echo "$COMPOSE_PROJECT_NAME of $COMPOSE_FILE" ;;
"compose config") echo "name: tested" ;;
info*) echo /nonexistent ;;
"image inspect"*"{{.Id}} kronos-api:current" | "image inspect"*"{{.Id}} nginx:1.27-alpine")
    echo "sha256:$(printf '%064d' 7)"
    ;;
"run "*"--entrypoint python"*)
    while [ "$1" != -c ]; do shift; done
    exec python3 "$@"
    ;;
"run "*) echo "judged" ;;
"image ls"*) printf '%s\n' ${TAGS:-} ;;
"ps "* | "volume ls"* | "image rm"*) ;;
*) exit 1 ;;
esac
"""

MODEL = {
    "services": {
        "kronos-api": {
            "image": "kronos-api:current",
            "environment": {"KRONOS_APP_NAME": "a $$ sign", "KRONOS_DEVICE": None},
            "volumes": [
                {"type": "volume", "source": "models", "target": "/models", "read_only": True}
            ],
        },
        "nginx": {
            "image": "nginx:1.27-alpine",
            "user": "101:101",
            "volumes": [{"type": "bind", "source": "/tls", "target": "/etc/nginx/tls"}],
        },
    },
    "volumes": {"models": {"name": "tested_models"}},
}


def tree_in(folder: Path) -> Path:
    """A copy of what deploy.sh needs to check names, in `folder`."""
    tree = folder / "tree"
    shutil.copytree(ROOT / "deploy", tree / "deploy")
    for name in ("deploy.sh", ".env.example"):
        shutil.copy(ROOT / name, tree)
    return tree


@pytest.fixture
def engine(tmp_path: Path) -> dict[str, str]:
    """A docker command that answers what is asked before anything is done."""
    (tmp_path / "bin").mkdir()
    docker = tmp_path / "bin" / "docker"
    docker.write_text(DOCKER)
    docker.chmod(0o755)
    (tmp_path / "model.json").write_text(json.dumps(MODEL))
    return {
        "PATH": f"{docker.parent}:{os.environ['PATH']}",
        "CALLS": str(tmp_path / "calls"),
        "MODEL": str(tmp_path / "model.json"),
        "TMPDIR": str(tmp_path),
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "KRONOS_TLS_DIR": str(tmp_path / "tls"),
    }


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
def test_unknown_names_in_env_are_reported(
    engine: dict[str, str], tmp_path: Path, mode: str
) -> None:
    tree = tree_in(tmp_path)
    example = (tree / ".env.example").read_text("utf-8")
    mistaken = (
        "KRONOS_RATE_LIMT_PER_MINUTE=5\nexport GUNICORN_WORKER = 2\n# KRONOS_COMMENT=1\n"
        "DEPLOY_TIMEOUTS=1\nKRONOS_ZZZZZZZZZZZZ=1\nHF_TOKEN=1\n"
    )
    (tree / ".env").write_text(example + mistaken)
    outcome = run(tree / "deploy.sh", mode, "--dry-run", **engine)
    assert [line for line in outcome.stderr.splitlines() if ".env" in line] == [
        f"deploy  .env: '{name}' is not a setting and changes nothing{hint}"
        for name, hint in (
            ("KRONOS_RATE_LIMT_PER_MINUTE", "; did you mean KRONOS_RATE_LIMIT_PER_MINUTE?"),
            ("GUNICORN_WORKER", "; did you mean GUNICORN_WORKERS?"),
            ("DEPLOY_TIMEOUTS", "; did you mean DEPLOY_TIMEOUT?"),
            ("KRONOS_ZZZZZZZZZZZZ", ""),
        )
    ]


def test_old_names_in_env_are_reported_with_the_new_ones(
    engine: dict[str, str], tmp_path: Path
) -> None:
    tree = tree_in(tmp_path)
    (tree / ".env").write_text(
        "KRONOS_ANSWER_TIMEOUT=20\nKRONOS_SEND_TIMEOUT=\n"
        "KRONOS_MAX_WORK=1\nKRONOS_MAX_DECODE_STEPS=2\n"
    )
    outcome = run(tree / "deploy.sh", "dev", "--dry-run", **engine)
    assert [line for line in outcome.stderr.splitlines() if ".env" in line] == [
        "deploy  .env: KRONOS_ANSWER_TIMEOUT was renamed to KRONOS_SEND_TIMEOUT and is accepted "
        f"until {REMOVAL}: rename it",
        "deploy  .env: KRONOS_MAX_WORK is ignored, because its new name KRONOS_MAX_DECODE_STEPS is "
        "set too: remove KRONOS_MAX_WORK",
    ]
    checks = (ROOT / "deploy" / "lib" / "checks.sh").read_text("utf-8")
    assert f'RENAMED="{" ".join(f"{old}={new}" for old, new in RENAMED.items())}"' in checks


def test_dry_run_judges_settings_and_creates_nothing(
    engine: dict[str, str], tmp_path: Path
) -> None:
    before = {path.name for path in tmp_path.iterdir()} | {"calls"}
    outcome = deploy("--dry-run", "--image", "kronos-api:current", **engine)
    assert outcome.returncode == 0, outcome.stderr
    assert "settings and checkpoint: judged" in outcome.stdout
    assert "would start 1" in outcome.stdout
    assert {path.name for path in tmp_path.iterdir()} == before
    calls = (tmp_path / "calls").read_text().splitlines()
    reading = (
        r"(info|version|ps|(image )?inspect|volume ls|buildx version|compose.* (config|version))"
    )
    runs = [call for call in calls if not re.match(rf"{reading}\b", call)]
    # Of no compose project, so that no network and no volume is made; and gone at the end.
    assert len(runs) == 6
    assert all(re.match(r"run --rm .*--network[= ]none ", call) for call in runs)
    (checked,) = (call for call in runs if call.endswith("kronos-api check"))
    assert "--env=KRONOS_APP_NAME=a $ sign " in checked
    assert "KRONOS_DEVICE" not in checked
    assert "tested_models" not in checked  # the volume does not exist yet


def test_dry_run_does_not_pull_an_image(engine: dict[str, str]) -> None:
    outcome = deploy("--dry-run", "--image", "other:1", **engine)
    assert outcome.returncode == 3
    assert "image other:1 is not on this host, and a dry run pulls nothing" in outcome.stderr


def test_lock_is_out_of_reach_of_other_users(engine: dict[str, str], tmp_path: Path) -> None:
    with (tmp_path / "kronos-deploy-tested.lock").open("w") as predictable:
        fcntl.flock(predictable, fcntl.LOCK_EX)
        outcome = deploy("--rollback", **engine)
    assert (outcome.returncode, outcome.stderr) == (
        3,
        "deploy  nothing to roll back to: image kronos-api:previous does not exist\n",
    )
    state = tmp_path / "state" / "kronos-deploy"
    assert state.stat().st_mode & 0o777 == 0o700
    with (state / "tested.lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        outcome = deploy("--rollback", **engine)
    assert outcome.returncode == 6
    assert "another deployment of project tested is in progress" in outcome.stderr
    (line,) = (state / "tested.history").read_text().splitlines()
    assert "failed       exit 3" in line


def test_names_that_killed_builds_left_are_removed(engine: dict[str, str]) -> None:
    alive = f"dry-run-{os.getpid()}"
    deploy("--rollback", **engine, TAGS=f"new current 0.1.0-abc dry-run-{2**30} {alive}")
    calls = Path(engine["CALLS"]).read_text().splitlines()
    removed = {call.rpartition(":")[2] for call in calls if call.startswith("image rm ")}
    assert removed == {"new", f"dry-run-{2**30}"}


def test_state_folder_is_no_link(engine: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "state" / "kronos-deploy").symlink_to(tmp_path / "elsewhere")
    outcome = deploy("--rollback", **engine)
    assert outcome.returncode == 3
    assert "must be a folder that belongs to this user" in outcome.stderr
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_links_that_the_gateway_cannot_follow_are_named(
    engine: dict[str, str], tmp_path: Path
) -> None:
    """As certbot lays them out: `live` has links to `archive`, which must be mounted as well."""
    for folder in ("archive", "tls"):
        (tmp_path / folder).mkdir()
    for name in ("fullchain.pem", "privkey.pem"):
        (tmp_path / "archive" / name).write_text("")
        (tmp_path / "tls" / name).symlink_to(f"../archive/{name}")
    outcome = deploy("--dry-run", "--image", "kronos-api:current", **engine)
    assert outcome.returncode == 3
    assert f"{tmp_path}/tls/fullchain.pem is a link to {tmp_path}/archive/" in outcome.stderr
    for name in ("fullchain.pem", "privkey.pem"):
        (tmp_path / "tls" / name).unlink()
        (tmp_path / "tls" / f"{name}.1").write_text("")
        (tmp_path / "tls" / name).symlink_to(f"{name}.1")
    outcome = deploy("--dry-run", "--image", "kronos-api:current", **engine)
    assert outcome.returncode == 0, outcome.stderr
    certbot = {"KRONOS_TLS_DIR": str(tmp_path), "KRONOS_TLS_NAME": "a.example"}
    (tmp_path / "live" / "a.example").mkdir(parents=True)
    for name in ("fullchain.pem", "privkey.pem"):
        (tmp_path / "live" / "a.example" / name).symlink_to(f"../../archive/{name}")
    outcome = deploy("--dry-run", "--image", "kronos-api:current", **engine | certbot)
    assert outcome.returncode == 0, outcome.stderr
