"""The images by themselves: what they are, and how they start with nothing around them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from kronos_api import __version__
from tests.integration.conftest import COMMIT, Images
from tests.integration.stack import (
    BODY,
    ROOT,
    Caller,
    container,
    docker,
    inspect,
    run,
    settings_free,
    until,
)

pytestmark = pytest.mark.docker

SINGLE = "/v1/predict/single"
# As in docker-compose.yml, and with no network at all.
ISOLATED = (
    "--network=none",
    "--read-only",
    "--tmpfs=/tmp",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges:true",
    "--shm-size=128m",
)


def image(name: str) -> dict[str, Any]:
    (found,) = json.loads(docker("image", "inspect", name))
    return dict(found)


@contextmanager
def isolated(name: str, *options: str, command: Sequence[str] = ()) -> Iterator[Caller]:
    """The image in a container that is its own caller."""
    with container(name, *command, options=[*ISOLATED, *options]) as started:
        yield Caller(started, base="http://127.0.0.1:8000")


def bundled(folder: Path) -> Path:
    """A copy of the bundled checkpoints, readable by every user."""
    models = folder / "models"
    shutil.copytree(ROOT / "kronos_api" / "assets" / "kronos-demo", models)
    for one in (models, *models.iterdir()):
        one.chmod(0o755)
    return models


def ready(service: Caller) -> None:
    def healthy() -> bool:
        state = inspect(service.container)["State"]
        assert state["Running"], docker("logs", service.container)
        return bool(state["Health"]["Status"] == "healthy")

    until(healthy, 180, "healthy")


def test_image_size_labels_and_user(images: Images, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(f"\n{images.said}")  # noqa: T201
    for name in (images.production, images.plain):
        found = image(name)
        assert found["Size"] < 2 * 10**9
        config = found["Config"]
        labels = config["Labels"]
        assert labels["org.opencontainers.image.version"] == __version__
        assert labels["org.opencontainers.image.revision"] == COMMIT
        assert labels["org.opencontainers.image.vendor"] == "The Kronos API authors"
        assert f"KRONOS_BUILD_COMMIT={COMMIT}" in config["Env"]
        assert datetime.fromisoformat(labels["org.opencontainers.image.created"]).tzinfo
        assert (config["User"], config["WorkingDir"]) == ("10001:10001", "/app")
        assert config["StopSignal"] == "SIGTERM"
        assert config["Healthcheck"]["Test"][:2] == ["CMD", "python"]
        assert list(config["ExposedPorts"]) == ["8000/tcp"]
    assert image(images.production)["Config"]["Cmd"] == ["kronos-api", "serve"]
    assert image(images.plain)["Config"]["Cmd"] == ["kronos-api", "serve", "--plain"]


def test_image_holds_no_build_tools(images: Images) -> None:
    look = "command -v pip gcc make; ls -d /source /wheels /requirements; find / -xdev -name pip"
    script = f"({look}) 2>/dev/null; id -u; id -un"
    assert docker("run", "--rm", images.production, "sh", "-c", script) == "10001\nkronos"


def test_unchanged_source_builds_the_same_image(images: Images) -> None:
    name = f"{images.production}-again"
    command = (images.tree / "scripts" / "build", "--no-audit", "--tag", name)
    run(*command, env=settings_free() | {"GIT_COMMIT": COMMIT}, cwd=images.tree)
    try:
        assert image(name)["Id"] == image(images.production)["Id"]
    finally:
        docker("image", "rm", name)


def test_source_change_keeps_the_dependency_layers(images: Images, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(images.tree, tree)
    changed = tree / "kronos_api" / "__init__.py"
    changed.write_text(changed.read_text("utf-8") + "\nCHANGED = True\n")
    name = f"{images.production}-changed"
    docker("build", "-f", str(tree / "Dockerfile.production"), "-t", name, str(tree), timeout=600)
    try:
        layers = [image(each)["RootFS"]["Layers"] for each in (images.production, name)]
        different = [old != new for old, new in zip(*layers, strict=True)]
        # The package; and the working directory, an empty layer that was made on top of it.
        assert different.count(True) <= 2
        assert not any(different[:-2])
    finally:
        docker("image", "rm", name)


def test_container_without_network_serves_and_stops(images: Images) -> None:
    with isolated(images.production) as service:
        *early, last = service.ask_until_answered(SINGLE, BODY)
        assert last.status == 200, last
        assert last.body["demo"] is True
        ready(service)
        docker("stop", "--time", "100", service.container, timeout=150)
        assert inspect(service.container)["State"]["ExitCode"] == 0
    # The small model may be there before the first request.
    assert {(each.status, each.code) for each in early} <= {(503, "MODEL_NOT_READY")}


def test_deadline_of_one_second(images: Images) -> None:
    settings = {"INFERENCE_TIMEOUT": "0.9", "REQUEST_TIMEOUT": "1", "WINDOW_POLICY": "exact"}
    options = [part for name in settings for part in ("-e", f"KRONOS_{name}={settings[name]}")]
    with isolated(images.production, *options) as service:
        ready(service)
        large = BODY | {"horizon": 512, "overrides": {"sample_count": 64}}
        answer = service.ask(SINGLE, large)
        # Too late, or refused in time once the pace is measured.
        outcomes = {(504, "PREDICTION_TIMEOUT"), (400, "WORK_TOO_LARGE")}
        assert (answer.status, answer.code) in outcomes


def test_mounted_weights(images: Images, tmp_path: Path) -> None:
    models = bundled(tmp_path)
    options = ["-v", f"{models}:/models:ro", "-e", "KRONOS_MODEL_PATH=/models"]
    with isolated(images.production, *options) as service:
        ready(service)
        assert service.ask("/v1/models").body["model"]["id"] == "/models/model"
        assert service.ask(SINGLE, BODY).status == 200


def test_missing_weights_end_the_container(images: Images) -> None:
    with isolated(images.production, "-e", "KRONOS_MODEL_PATH=/models") as service:
        until(lambda: not inspect(service.container)["State"]["Running"], 120, "it ended")
        assert inspect(service.container)["State"]["ExitCode"] == 3
        assert "/models/model" in docker("logs", service.container)


def test_plain_image_is_one_process(images: Images) -> None:
    with isolated(images.plain) as service:
        ready(service)
        assert service.ask(SINGLE, BODY).status == 200
        processes = docker("top", service.container, "-o", "pid,args").splitlines()[1:]
        assert len([line for line in processes if "kronos-api" in line]) == 1
        environment = dict(line.split("=", 1) for line in image(images.plain)["Config"]["Env"])
        limits = ("CONCURRENCY", "MAX_REQUESTS", "MAX_REQUESTS_JITTER")
        values = [environment[f"KRONOS_LIMIT_{name}"] for name in limits]
        assert values == ["100", "50000", "5000"]
