"""A deployment that deploy.sh looks after, and callers that ask its gateway all the while."""

from __future__ import annotations

import base64
import itertools
import json
import os
import signal
import ssl
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any, Final

from tests.integration.stack import PYTHON, ROOT, Stack, docker, inspect, until

CALLERS: Final = 8
FORECAST_EVERY: Final = 4
"""Of so many requests one is a forecast; the others are light, as the machine has other work."""

FORECAST: Final = {
    "candles": {"open": [10, 11], "high": [12, 12], "low": [9, 10], "close": [11, 10]},
    "timestamps": ["2025-06-02T10:00:00Z", "2025-06-02T10:15:00Z"],
    "horizon": 1,
    "freq": "15min",
    "overrides": {"seed": 7},
}


STUB: Final = "/stub.py"
STUB_IS_READY: Final = """
from urllib.request import urlopen
urlopen("http://127.0.0.1:8000/v1/readyz", timeout=4)
"""


@dataclass
class Load:
    """Callers over kept connections to the gateway on a port of the loopback."""

    port: int
    made: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _over: threading.Event = field(default_factory=threading.Event)

    def reaches(self, count: int) -> None:
        """Wait until that many requests were made in all."""
        until(lambda: self.made >= count, 600, f"{count} requests")

    def _call(self) -> None:
        link = HTTPSConnection("127.0.0.1", self.port, timeout=90, context=_any_certificate())
        for number in itertools.count():
            if self._over.is_set():
                break
            outcome = self._ask(link, forecast=number % FORECAST_EVERY == 0)
            with self._lock:
                self.made += 1
                if outcome is not None:
                    self.failures[outcome] += 1
            time.sleep(0.02)
        link.close()

    def _ask(self, link: HTTPSConnection, *, forecast: bool) -> str | None:
        """What failed, if anything did."""
        try:
            if forecast:
                body = json.dumps(FORECAST)
                link.request(
                    "POST", "/v1/predict/single", body, {"Content-Type": "application/json"}
                )
            else:
                link.request("GET", "/v1/models")
            answer = link.getresponse()
            text = answer.read().decode()
        except (OSError, HTTPException) as error:
            link.close()
            return repr(error)
        if answer.status == 200 and (not forecast or len(json.loads(text)["prediction"]) == 1):
            return None
        return f"{answer.status} {text[:200]}"


@contextmanager
def load(port: int) -> Iterator[Load]:
    """Callers that ask until the block ends, when all their answers are there."""
    calls = Load(port)
    threads = [threading.Thread(target=calls._call) for _ in range(CALLERS)]
    for thread in threads:
        thread.start()
    try:
        yield calls
    finally:
        calls._over.set()
        for thread in threads:
            thread.join(120)


def _any_certificate() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@dataclass(frozen=True)
class Outcome:
    """How a run of deploy.sh ended, and all that it said."""

    status: int
    said: str


@dataclass
class Deployment:
    """A compose project with two replicas behind a gateway, and its images."""

    stack: Stack
    repository: str
    port: int
    state: Path
    """Where deploy.sh keeps its lock and history."""
    root: Path = ROOT
    """The tree whose deploy.sh runs, and which it builds."""

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        """A running deploy.sh."""
        return subprocess.Popen(
            # A background process ignores SIGINT, and its children inherit that.
            ["env", "--default-signal=INT", self.root / "deploy.sh", *arguments],
            env=self.stack.env
            | {
                "COMPOSE_ENV_FILES": os.devnull,
                "DEPLOY_TIMEOUT": "240",
                "XDG_STATE_HOME": str(self.state),
            }
            | variables,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def deploy(self, *arguments: str, **variables: str) -> Outcome:
        """deploy.sh, from beginning to end."""
        process = self.start(*arguments, **variables)
        said, _ = process.communicate(timeout=600)
        return Outcome(process.returncode, said)

    def image(self, name: str, *lines: str, base: str = "a") -> str:
        """An image that has `lines` of a Dockerfile on top of another."""
        tag = f"{self.repository}:{name}"
        recipe = "\n".join((f"FROM {self.repository}:{base}", *lines))
        docker("build", "--tag", tag, "-", text=recipe, timeout=600)
        return tag

    def stub(self, name: str) -> str:
        """An image of a service that has no model, and so is healthy a second after its start."""
        tag = f"{self.repository}:{name}"
        docker("build", "--tag", tag, "-", text=stub_recipe(name), timeout=600)
        return tag

    def tags(self) -> dict[str, str]:
        """Ids of its images, by tag."""
        form = "{{.Tag}} {{.ID}}"
        listed = docker("image", "ls", "--no-trunc", "--format", form, self.repository)
        return dict(line.split() for line in listed.splitlines())

    def named(self, tag: str) -> str:
        """The name of its image that has this tag."""
        return f"{self.repository}:{tag}"

    def other(self) -> str:
        """The tag of one of the images `a` and `b` that no replica runs."""
        return next(tag for tag in ("a", "b") if self.tags()[tag] not in self.images())

    def replicas(self) -> dict[str, dict[str, Any]]:
        """All that is known of each replica that runs, by id."""
        found = {one: inspect(one) for one in self.stack.containers()}
        return {one: known for one, known in found.items() if known["State"]["Running"]}

    def images(self) -> set[str]:
        """Ids of the images that replicas run."""
        return {known["Image"] for known in self.replicas().values()}

    def terminate_one(self) -> None:
        """SIGTERM to one of the replicas, which ends in order."""
        one = next(iter(self.replicas()))
        docker("kill", "--signal", "TERM", one)
        until(lambda: not inspect(one)["State"]["Running"], 120, "the replica ends")
        assert inspect(one)["State"]["ExitCode"] == 0


def stub_recipe(name: str) -> str:
    """A Dockerfile of the stub, labelled with this name."""
    source = (ROOT / "tests" / "integration" / "stub.py").read_bytes()
    encoded = base64.b64encode(source).decode("ascii")
    prefix = "org.opencontainers.image"
    check = json.dumps(["python", "-c", STUB_IS_READY])
    return f"""FROM {PYTHON}
RUN printf '#!/bin/sh\\necho fine\\n' >/usr/local/bin/kronos-api \\
    && chmod +x /usr/local/bin/kronos-api
RUN echo {encoded} | base64 -d >{STUB}
LABEL {prefix}.version=1.2.3 {prefix}.revision=commit-of-{name}
HEALTHCHECK --interval=2s --start-period=60s --start-interval=0.5s CMD {check}
CMD ["python", "{STUB}"]
"""


def kill_when(process: subprocess.Popen[str], told: str, count: int = 1) -> None:
    """SIGKILL for deploy.sh when it says so for the `count`th time.

    Returns when what it had started has ended, too, and so let go of the lock.
    """
    with process:
        assert process.stdout is not None
        for line in process.stdout:
            count -= told in line
            if count == 0:
                process.kill()
    assert process.returncode == -signal.SIGKILL


def interrupt_when(process: subprocess.Popen[str], told: str) -> Outcome:
    """Interrupt a deployment as soon as it says so; what it said until its end."""
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if told in line:
            process.send_signal(signal.SIGINT)
            break
    rest, _ = process.communicate(timeout=600)
    return Outcome(process.returncode, "".join(said) + rest)
