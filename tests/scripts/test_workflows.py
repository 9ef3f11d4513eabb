"""The workflows: pinned actions, least permissions, and the commands of the documentation."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml  # type: ignore[import-untyped]

from tests.processes import ROOT

WORKFLOWS: Final = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
DIGEST: Final = "sha256:" + "a1" * 32


def jobs() -> dict[str, dict[str, Any]]:
    """All jobs by workflow and name."""
    return {
        f"{path.stem}.{name}": job
        for path in WORKFLOWS
        for name, job in yaml.safe_load(path.read_text("utf-8"))["jobs"].items()
    }


def commands(*names: str) -> str:
    """What the steps of these jobs run."""
    found = jobs()
    return "\n".join(step.get("run", "") for name in names for step in found[name]["steps"])


def test_actions_are_pinned_by_commit_with_their_version() -> None:
    seen: dict[str, set[str]] = {}
    for path in WORKFLOWS:
        for line in path.read_text("utf-8").splitlines():
            if not re.match(r"\s*(- )?uses:", line) or "uses: ./" in line:
                continue
            pinned = re.search(r"uses: ([\w./-]+)@([0-9a-f]{40})  # (v\d+\.\d+\.\d+)$", line)
            assert pinned, f"{path.name}: {line}"
            seen.setdefault(pinned[1], set()).add(pinned.expand(r"\2 \3"))
    assert len(seen) >= 8
    assert all(len(versions) == 1 for versions in seen.values()), seen


def test_each_job_has_its_own_permissions_and_a_limit() -> None:
    for path in WORKFLOWS:
        workflow = yaml.safe_load(path.read_text("utf-8"))
        assert workflow["permissions"] == {}
        # YAML 1.1 reads the key `on` as true. This trigger hands secrets to the code of a fork.
        assert "pull_request_target" not in workflow[True]
        assert "workflow_run" not in workflow[True]
    writing = set()
    for name, job in jobs().items():
        assert isinstance(job["permissions"], dict), name
        assert "uses" in job or job["timeout-minutes"] <= 90, name
        writing |= {name} if "write" in job["permissions"].values() else set()
    assert writing == {
        *("image.build", "image.publish"),
        *("release.index", "release.chart", "release.page"),
    }
    # Code of pull requests reads alone.
    assert not any(name.startswith("tests.") for name in writing)


def test_credentials_stay_out_of_the_checkout_and_expressions_out_of_scripts() -> None:
    for name, job in jobs().items():
        for step in job.get("steps", ()):
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False, name
            assert "${{" not in step.get("run", ""), name


def test_workflows_run_the_documented_commands() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    first = re.findall(r"^\./scripts/\w+", readme.partition("```")[2].partition("```")[0], re.M)
    assert first == ["./scripts/serve", "./scripts/test"]
    quick = commands("tests.quick")
    for command in first:
        assert command in quick
    assert "tests/smoke/test_smoke.sh" in quick
    assert "./scripts/check" in commands("tests.check")
    assert "./.ci/run" in commands("tests.verify")
    # Pythons of the package.
    matrix = jobs()["tests.quick"]["strategy"]["matrix"]["python"]
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    assert matrix == re.findall(r"Programming Language :: Python :: (3\.\d+)", project)


def test_production_follows_staging_and_an_approval() -> None:
    found = jobs()
    assert found["image.build"]["needs"] == found["release.build"]["needs"] == "tests"
    assert found["image.publish"]["needs"] == "build"
    assert found["image.production"]["needs"] == ["publish", "staging"]
    for name in ("staging", "production"):
        job = found[f"image.{name}"]
        assert job["environment"]["name"] == name
        # By digest, so that what was tried is what runs.
        assert 'scripts/rollout "$REPOSITORY@$DIGEST"' in commands(f"image.{name}")
        assert "tests/smoke/test_smoke.sh --gateway" in commands(f"image.{name}")
    # Both architectures are tried and scanned before they are pushed.
    steps = found["image.build"]["steps"]
    order = [step.get("name", step.get("uses", "")) for step in steps]
    smoke, scan, push = (
        next(index for index, name in enumerate(order) if name.startswith(start))
        for start in ("Smoke test", "Scan", "Push")
    )
    assert smoke < scan < push
    runners = found["image.build"]["strategy"]["matrix"]["include"]
    assert {each["architecture"] for each in runners} == {"amd64", "arm64"}


def tree(folder: Path) -> Path:
    """A copy of what scripts/pin reads and writes, and a client of registries with one digest."""
    for name in (
        *("scripts/pin", "Dockerfile", "Dockerfile.production", "docker-compose.yml"),
        "deploy/helm/kronos-api/values.yaml",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    docker = folder / "bin" / "docker"
    docker.parent.mkdir()
    docker.write_text(f'#!/bin/sh\n[ "$1 $2 $3" = "buildx imagetools inspect" ] && echo {DIGEST}\n')
    docker.chmod(0o755)
    return folder


def pin(folder: Path, *arguments: str) -> str:
    path = f"{folder / 'bin'}:/usr/bin:/bin"
    return subprocess.run(
        [folder / "scripts" / "pin", *arguments],
        env={"PATH": path}, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip


def test_pin_adds_digests_to_tags_and_takes_them_away(tmp_path: Path) -> None:
    folder = tree(tmp_path)
    pin(folder, "--remove")  # a release has digests
    names = ("Dockerfile", "Dockerfile.production", "docker-compose.yml")
    before = {name: (folder / name).read_text("utf-8") for name in names}
    said = pin(folder)
    assert {line.split()[1].partition("@")[0] for line in said.splitlines()} == {
        *("python:3.11-slim", "redis:7-alpine", "nginx:1.30-alpine")
    }
    for name in names[:2]:
        assert f"FROM python:3.11-slim@{DIGEST} AS python\n" in (folder / name).read_text("utf-8")
    compose = (folder / "docker-compose.yml").read_text("utf-8")
    assert f"image: nginx:1.30-alpine@{DIGEST}\n" in compose
    assert "image: ${KRONOS_IMAGE:-kronos-api:current}" in compose
    once = {name: (folder / name).read_text("utf-8") for name in names}
    assert pin(folder) == said
    assert {name: (folder / name).read_text("utf-8") for name in names} == once
    pin(folder, "--remove")
    assert {name: (folder / name).read_text("utf-8") for name in names} == before


SSH = """#!/bin/bash
printf '%s\\n' "$@" >"$CALLS"
cat "$2" "${4#*=}" >>"$CALLS"
HOME=$FOLDER exec bash "${@: -4}"
"""


@pytest.mark.parametrize(("status", "outcome"), [(0, 0), (5, 5)])
def test_rollout_deploys_the_digest_from_its_commit(
    tmp_path: Path, status: int, outcome: int
) -> None:
    """The other host is a folder with a checkout, whose deploy.sh writes down its arguments."""
    checkout, remote = tmp_path / "kronos", tmp_path / "origin"
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@example.org")
    subprocess.run([*git, "init", "--quiet", remote], check=True)
    script = f'#!/bin/sh\nprintf "%s\\n" "$@" >deployed\nexit {status}\n'
    (remote / "deploy.sh").write_text(script)
    (remote / "deploy.sh").chmod(0o755)
    subprocess.run([*git, "-C", remote, "add", "."], check=True)
    subprocess.run([*git, "-C", remote, "commit", "--quiet", "-m", "one"], check=True)
    subprocess.run([*git, "clone", "--quiet", remote, checkout], check=True)
    commit = subprocess.check_output(["git", "-C", remote, "rev-parse", "HEAD"], text=True).strip()
    (tmp_path / "ssh").write_text(SSH)
    (tmp_path / "ssh").chmod(0o755)
    image = f"ghcr.io/owner/kronos-api@{DIGEST}"
    environment = {
        "PATH": f"{tmp_path}:/usr/bin:/bin",
        "FOLDER": str(tmp_path),
        "CALLS": str(tmp_path / "calls"),
        "GITHUB_SHA": commit,
        "DEPLOY_TARGET": "deploy@host.example",
        "DEPLOY_KEY": "the key",
        "DEPLOY_KNOWN_HOSTS": "host.example ssh-ed25519 AAAA",
    }
    rollout = ROOT / "scripts" / "rollout"
    done = subprocess.run([rollout, image], env=environment, capture_output=True, text=True)
    assert done.returncode == outcome, done.stderr
    assert (checkout / "deployed").read_text().split() == ["--image", image]
    calls = (tmp_path / "calls").read_text()
    assert "StrictHostKeyChecking=yes" in calls
    assert "the key\nhost.example ssh-ed25519 AAAA\n" in calls
    for wrong in ("kronos-api:current", f"{image};id"):
        done = subprocess.run([rollout, wrong], env=environment, capture_output=True, text=True)
        assert done.returncode == 2
        assert "is not an image by digest" in done.stderr
