"""Real containers for tests: a clean tree, compose projects, callers on their networks."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
PYTHON: Final = "python:3.11-slim"
BASES: Final = (PYTHON, "redis:7-alpine", "nginx:1.30-alpine")
SERVICE: Final = "http://kronos-api:8000"
BODY: Final = json.loads((ROOT / "examples" / "request-single.json").read_text("utf-8"))

_number = itertools.count()

ASK: Final = (Path(__file__).parent / "ask.py").read_text("utf-8")
"""What a caller's container runs."""


def run(
    *command: str | Path,
    env: Mapping[str, str] | None = None,
    cwd: Path = ROOT,
    text: str | None = None,
    timeout: float = 600,
) -> str:
    """The output of a command that must succeed."""
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, env=env, cwd=cwd, input=text
    )
    assert done.returncode == 0, f"{command}: {done.stdout[-4000:]}{done.stderr[-4000:]}"
    return done.stdout.strip()


def docker(*parts: str, text: str | None = None, timeout: float = 120) -> str:
    return run("docker", *parts, text=text, timeout=timeout)


def inspect(container: str) -> dict[str, Any]:
    (found,) = json.loads(docker("inspect", container))
    return dict(found)


def need_engine() -> None:
    """Skip where there is no engine with compose, or it lacks an image that ours build on."""

    def fails(*command: str) -> bool:
        return subprocess.run(command, capture_output=True).returncode != 0

    if shutil.which("docker") is None or fails("docker", "info"):
        pytest.skip("needs a Docker engine")
    if fails("docker", "compose", "version"):
        pytest.skip("needs docker compose")
    for image in BASES:
        if fails("docker", "image", "inspect", image):
            pytest.skip(f"needs the image {image}")


def clean_tree(folder: Path) -> Path:
    """A copy of what git knows or would take: no environment, no caches, no results."""
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in listed.split("\0"):
        source = ROOT / name
        if name and source.is_file():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    return folder


def settings_free() -> dict[str, str]:
    """The environment without anything that settings or compose would read."""
    ours = ("KRONOS_", "GUNICORN_", "COMPOSE_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


def until(holds: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait until `holds()`."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.2)


@dataclass(frozen=True)
class Answer:
    status: int
    """0 where there was none; `body` then tells why."""
    headers: dict[str, str]
    body: Any
    seconds: float

    @property
    def code(self) -> str:
        """The code of a refusal."""
        return str(self.body["error"]["code"])


@dataclass(frozen=True)
class Caller:
    """A container that asks others over HTTP."""

    container: str

    base: str = SERVICE

    asks: int = 5
    """Attempts while DNS does not identify the caller in time; 1 turns retries off."""

    def ask(self, path: str, body: object = None, *, timeout: float = 60, **more: Any) -> Answer:
        """One request, as `ask_all` describes them."""
        (answer,) = self.ask_all([{"path": path, "body": body, **more}], timeout=timeout)
        return answer

    def ask_all(self, asked: Sequence[Mapping[str, Any]], *, timeout: float = 60) -> list[Answer]:
        """Answers to requests made one after the other over one connection.

        Keys: path, body (JSON; sent with POST), method, headers, size (of a body of spaces).
        """
        return self._run({"asked": list(asked)}, timeout, 30 + timeout * len(asked))

    def ask_until_answered(self, path: str, body: object, timeout: float = 120) -> list[Answer]:
        """All answers to a request that is repeated until it gets its 200."""
        task = {"asked": [{"path": path, "body": body}], "until_answered": True}
        return self._run(task, timeout, 2 * timeout + 30)

    def of(self, base: str) -> Caller:
        """The same caller of another service."""
        return replace(self, base=base)

    def _run(self, task: dict[str, Any], timeout: float, limit: float) -> list[Answer]:
        text = json.dumps(task | {"base": self.base, "timeout": timeout, "asks": self.asks})
        command = ("exec", "-i", self.container, "python", "-c", ASK)
        return [
            Answer(**answer) for answer in json.loads(docker(*command, text=text, timeout=limit))
        ]


@contextmanager
def container(image: str, *command: str, options: Sequence[str] = ()) -> Iterator[str]:
    """The id of a container that runs meanwhile."""
    started = docker("run", "-d", *options, image, *command)
    try:
        yield started
    finally:
        docker("rm", "-f", "-v", started)


@contextmanager
def caller(network: str, alias: str | None = None) -> Iterator[Caller]:
    """A caller on `network`, under an alias of that network."""
    options = ["--init", "--network", network]
    if alias is not None:
        options += ["--network-alias", alias]
    with container(PYTHON, "sleep", "infinity", options=options) as started:
        yield Caller(started)


@dataclass
class Stack:
    """A compose project of its own, which disturbs no other."""

    image: str
    settings: dict[str, str] = field(default_factory=dict)
    profiles: tuple[str, ...] = ()
    file: str = "docker-compose.yml"
    root: Path = ROOT

    def __post_init__(self) -> None:
        unique = (os.getpid() + 251 * next(_number)) % 62_000
        self.project = f"kronos-test-{unique}"
        self.network = f"{self.project}-internal"
        own = {
            "COMPOSE_PROJECT_NAME": self.project,
            "COMPOSE_PROFILES": ",".join(self.profiles),
            "COMPOSE_FILE": str(self.root / self.file),
            "KRONOS_IMAGE": self.image,
            "KRONOS_NETWORK": self.network,
            "KRONOS_SUBNET": f"10.{214 + unique // 250 % 16}.{unique % 250}.0/24",
        }
        self.env = settings_free() | own | self.settings

    def compose(self, *parts: str, timeout: float = 300) -> str:
        """Run compose, without what a .env beside the file would add."""
        command = ("docker", "compose", "--env-file", os.devnull, *parts)
        return run(*command, env=self.env, cwd=self.root, timeout=timeout)

    def up(self, *parts: str) -> None:
        """Start and wait until all is healthy; log lines tell why it is not.

        The smoke test is left out: `--wait` takes a service that ends for one that failed.
        """
        services = self.compose("config", "--services").split()
        if not set(parts) & set(services):
            parts += tuple(name for name in services if name != "smoke")
        try:
            self.compose("up", "-d", "--wait", "--wait-timeout", "240", *parts)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.compose('logs', '--tail', '50')}") from None

    def down(self) -> None:
        self.compose("down", "-v", "--remove-orphans", "--timeout", "5")

    def containers(self, service: str = "kronos-api") -> list[str]:
        """Ids of the service's containers, also of those that have ended."""
        return self.compose("ps", "-a", "-q", "--no-trunc", service).split()


@contextmanager
def running(stack: Stack, *parts: str) -> Iterator[Stack]:
    """The stack while it is up and healthy."""
    try:
        stack.up(*parts)
        yield stack
    finally:
        stack.down()
