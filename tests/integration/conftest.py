"""The images, built once for all tests here, and the stack that most of them ask."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from tests.integration.rolling import Deployment
from tests.integration.stack import (
    Caller,
    Stack,
    caller,
    clean_tree,
    docker,
    need_engine,
    run,
    running,
    settings_free,
    until,
)
from tests.processes import free_port

COMMIT: Final = "0123456789ab"


class Images(NamedTuple):
    """Names of the images, and the clean tree that they were built from."""

    production: str
    plain: str
    tree: Path
    said: str
    """What scripts/build printed."""


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Images]:
    """Both images as scripts/build makes them from a clean tree."""
    need_engine()
    tree = clean_tree(tmp_path_factory.mktemp("clean") / "tree")
    tag = f"kronos-api:test-{os.getpid()}"
    names = {"production": tag, "plain": f"{tag}-plain"}
    said = []
    for only, image in names.items():
        command = (tree / "scripts" / "build", "--no-audit", "--only", only, "--tag", image)
        env = settings_free() | {"GIT_COMMIT": COMMIT}
        said.append(run(*command, env=env, cwd=tree, timeout=1800))
    try:
        yield Images(**names, tree=tree, said="\n".join(said))
    finally:
        with suppress(AssertionError):  # in use by a container that a failed test left
            docker("image", "rm", *names.values())


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a certificate for the gateway."""
    folder = tmp_path_factory.mktemp("certificate")
    folder.parent.chmod(0o755)  # for user 101 in the container
    run("deploy/nginx/self-signed", folder / "tls")
    return folder / "tls"


@pytest.fixture(scope="session")
def stack(images: Images, certificate: Path) -> Iterator[Stack]:
    """One replica with Redis behind the gateway; siblings named sibling and busy may call."""
    https, http = free_port(), free_port()
    settings = {
        "KRONOS_CONTAINER_WHITELIST": "sibling,busy",
        "KRONOS_TLS_DIR": str(certificate),
        "KRONOS_HTTPS_PORT": f"127.0.0.1:{https}",
        "KRONOS_HTTP_PORT": f"127.0.0.1:{http}",
    }
    with running(Stack(images.production, settings, profiles=("gateway",))) as up:
        yield up


@pytest.fixture(scope="session")
def sibling(stack: Stack) -> Iterator[Caller]:
    """A container on the service's network that may call."""
    with caller(stack.network, "sibling") as container:
        yield container


@pytest.fixture(scope="session")
def busy(stack: Stack) -> Iterator[Caller]:
    """Another, with a quota of its own."""
    with caller(stack.network, "busy") as container:
        yield container


@pytest.fixture(scope="session")
def unlisted(stack: Stack) -> Iterator[Caller]:
    """A container on the service's network that may not call."""
    with caller(stack.network) as container:
        yield container


@contextmanager
def deployed(repository: str, certificate: Path, state: Path) -> Iterator[Deployment]:
    """A project of two replicas behind a gateway, for deploy.sh; it is removed at the end."""
    https, http = free_port(), free_port()
    settings = {
        # Callers on this machine come from a bridge's address.
        "KRONOS_CONTAINER_WHITELIST": "10.0.0.0/8,172.16.0.0/12,192.168.0.0/16",
        "KRONOS_RATE_LIMIT_PER_MINUTE": "1000000",
        "KRONOS_RATE_LIMIT_OTHER_PER_MINUTE": "1000000",
        "KRONOS_GATEWAY_RATE": "100000",
        "KRONOS_TORCH_THREADS": "1",
        "KRONOS_REPLICAS": "2",
        "KRONOS_TLS_DIR": str(certificate),
        "KRONOS_HTTPS_PORT": f"127.0.0.1:{https}",
        "KRONOS_HTTP_PORT": f"127.0.0.1:{http}",
    }
    stack = Stack(f"{repository}:current", settings, profiles=("gateway",))
    # The gateway by its address: on a busy machine DNS may not answer in its time.
    stack.env["KRONOS_TRUSTED_PROXIES"] = stack.env["KRONOS_SUBNET"]
    try:
        yield Deployment(stack, repository, https, state)
    finally:
        stack.down()
        with suppress(AssertionError):  # in use by a container that a failed test left
            listed = docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", repository)
            docker("image", "rm", "--force", *listed.split())


@pytest.fixture(scope="session")
def deployment(
    images: Images, certificate: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    """Two replicas of the image `a` behind a gateway, as a first run of deploy.sh leaves them."""
    repository = f"kronos-rollout-{os.getpid()}"
    with deployed(repository, certificate, tmp_path_factory.mktemp("state")) as found:
        docker("tag", images.production, f"{repository}:a")
        found.image("b", "LABEL generation=b")
        outcome = found.deploy("--image", f"{repository}:a")
        assert outcome.status == 0, outcome.said
        yield found


@pytest.fixture(scope="module")
def stubs(certificate: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """The same with images of a stub, which starts at once: for what deploy.sh does with them."""
    need_engine()
    repository = f"kronos-stubs-{os.getpid()}"
    with deployed(repository, certificate, tmp_path_factory.mktemp("state")) as found:
        found.stub("a")
        found.stub("b")
        outcome = found.deploy("--image", f"{repository}:a")
        assert outcome.status == 0, outcome.said
        yield found


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry on the loopback, which engines take for trustworthy."""
    program = shutil.which("docker-registry")
    if program is None:
        pytest.skip("needs docker-registry")
    folder = tmp_path_factory.mktemp("registry")
    port = free_port()
    place = f"127.0.0.1:{port}"
    settings = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": str(folder / "images")}},
        "http": {"addr": place},
    }
    (folder / "settings.yml").write_text(json.dumps(settings), "utf-8")  # JSON is YAML, too
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(
            [program, "serve", folder / "settings.yml"], stdout=log, stderr=log
        ) as process,
    ):
        try:
            until(lambda: _listens(port), 60, f"the registry listens: {folder / 'log'}")
            yield place
        finally:
            process.terminate()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
