"""The gateway as it is deployed, run by this machine's nginx from a folder."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.processes import ROOT, free_port, run, until

SOURCE: Final = ROOT / "deploy" / "nginx"

needs_nginx = pytest.mark.skipif(
    shutil.which("nginx") is None, reason="needs nginx (Debian: nginx-light)"
)


@dataclass(frozen=True)
class Gateway:
    """A gateway on the loopback."""

    folder: Path
    https: int
    http: int

    @property
    def url(self) -> str:
        return f"https://localhost:{self.https}"

    @property
    def log(self) -> str:
        """The lines of nginx and of the script beside it."""
        return (self.folder / "log").read_text("utf-8")


@contextmanager
def gateway(folder: Path, replica: int, **settings: str) -> Iterator[Gateway]:
    """The gateway before a service on a port of the loopback; certificate in `folder`/tls."""
    found = Gateway(folder, free_port(), free_port())
    changes = {
        "/tmp/": f"{folder}/tmp/",  # first: the folder itself is in one of this name
        "/etc/nginx/": f"{folder}/",
        "interval=0.5": "interval=0.05",
        "listen 127.0.0.1:8081": f"listen 127.0.0.1:{free_port()}",
        "listen 8082": f"listen 127.0.0.1:{free_port()}",
        "listen 8080": f"listen 127.0.0.1:{found.http}",
        "listen 8443": f"listen 127.0.0.1:{found.https}",
        "kronos-api:8000": f"127.0.0.1:{replica}",
    }
    missing = set(changes)
    for name in ("nginx.conf", "gateway", "settings"):
        text = (SOURCE / name).read_text("utf-8")
        missing -= {old for old in missing if old in text}
        for old, new in changes.items():
            text = text.replace(old, new)
        if name == "nginx.conf" and os.geteuid() == 0:
            text = f"user root;\n{text}"
        (folder / name).write_text(text, "utf-8")
        (folder / name).chmod(0o755)
    assert not missing
    if not (folder / "tls").exists():
        run(SOURCE / "self-signed", folder / "tls")
    # nginx reads the configuration of this folder, as it reads that of /etc/nginx in its image.
    (folder / "bin").mkdir()
    (folder / "tmp").mkdir()
    wrapper = folder / "bin" / "nginx"
    wrapper.write_text(
        f'#!/bin/sh\nexec {shutil.which("nginx")} -e stderr -c {folder}/nginx.conf "$@"\n'
    )
    wrapper.chmod(0o755)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("KRONOS_")}
    clean["PATH"] = f"{wrapper.parent}:{clean['PATH']}"
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(
            [folder / "gateway"],
            env=clean | {"KRONOS_HTTPS_PORT": f"127.0.0.1:{found.https}"} | settings,
            stdout=log,
            stderr=log,
            start_new_session=True,
        ) as process,
    ):
        try:
            until(lambda: process.poll() is not None or _listens(found.https))
            assert process.poll() is None, found.log
            yield found
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)


def _listens(port: int) -> bool:
    with socket.socket() as link:
        return link.connect_ex(("127.0.0.1", port)) == 0
