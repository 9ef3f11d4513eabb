"""The Docker host of the runbooks: their commands are run as written, and reach processes.

`docker` and `./deploy.sh` are stand-ins in a folder of their own, beside links to `monitoring` and
the rest of the source. They do to the processes of a `World` what Docker does to containers: a
replica is a process with a mount namespace, a control group and a log of its own. Everything else
is the real program: `monitoring/query`, `promtool`, `openssl`, `grep`, `redis-cli`, `kronos-api`.
"""

from __future__ import annotations

import json
import os
import re
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.monitoring.sandbox import Sandbox
from tests.monitoring.world import MAX_MEMORY, World
from tests.processes import ROOT, Service
from tests.test_runbooks import BLOCK

PAGES: Final = ROOT / "docs" / "runbooks"
STAND_IN: Final = """#!{python} -ISB
import json, socket, sys
with socket.socket(socket.AF_UNIX) as link:
    link.connect({socket!r})
    link.sendall((json.dumps([{program!r}, *sys.argv[1:]]) + "\\n").encode())
    status, output = json.loads(b"".join(iter(lambda: link.recv(65536), b"")))
print(output, end="")
sys.exit(status)
"""


OF_COMPOSE: Final = {
    *("--env-file", ".env", "-f", "monitoring/docker-compose.yml"),
    *("--profile", "probes", "gateway"),
}


def section(page: str, title: str) -> list[str]:
    """The lines of the commands in a section of a page."""
    text = (PAGES / f"{page}.md").read_text("utf-8")
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"{page} has no section {title}"
    blocks = BLOCK.findall(found[1])
    return [line.strip() for block in blocks for line in block.splitlines()]


class Host:
    """Runs commands of the runbooks against `world`."""

    def __init__(self, folder: Path, world: World) -> None:
        self.world = world
        self.settings: dict[str, str] = {}
        """What the operator has changed in `.env`; names without `KRONOS_`."""
        self.redis_memory = MAX_MEMORY
        """What `docker-compose.yml` says, in bytes."""
        self.before: dict[str, str] = {}
        """The settings before the latest deployment."""
        self.folder = folder / "host"
        for name in ("monitoring", "docs", "scripts"):
            link = self.folder / name
            link.parent.mkdir(exist_ok=True)
            link.symlink_to(ROOT / name)
        (self.folder / ".env").touch()
        (self.folder / "deploy" / "nginx").mkdir(parents=True)
        (self.folder / "deploy" / "nginx" / "tls").symlink_to(world.stack.folder)
        socket = str(folder / "host.sock")
        for path, program in (("bin/docker", "docker"), ("deploy.sh", "deploy")):
            script = self.folder / path
            script.parent.mkdir(exist_ok=True)
            script.write_text(
                STAND_IN.format(python=sys.executable, socket=socket, program=program)
            )
            script.chmod(0o755)
        host = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                program, *words = json.loads(self.rfile.readline())
                try:
                    answer = 0, (host.deploy if program == "deploy" else host.docker)(words)
                except Exception as error:
                    answer = 1, f"{error!r}\n"
                self.wfile.write(json.dumps(answer).encode())

        self.server = socketserver.ThreadingUnixStreamServer(socket, Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __enter__(self) -> Host:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def replicas(self) -> dict[str, Service]:
        """By the name of the container."""
        named = enumerate(self.world.replicas, 1)
        return {f"kronos-kronos-api-{number}": one for number, one in named}

    def run(self, line: str, container: str = "", name: str = "") -> str:
        """The output of a command as a page has it; CONTAINER and NAME are what the page says."""
        line = line.replace("CONTAINER", container).replace("NAME", name)
        url = f"http://127.0.0.1:{self.world.stack.port['prometheus']}"
        # The host's own programs: kronos-api is in the containers alone.
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=self.folder,
            env=os.environ | {"PROMETHEUS_URL": url, "PATH": path},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout

    def diagnose(self, page: str, **names: str) -> str:
        """The output of all commands under Diagnosis, those that fail included."""
        outputs = []
        for line in section(page, "Diagnosis"):
            found = self.run(f"{line} 2>&1 || true", **names)
            outputs.append(f"$ {line}\n{found}")
        return "".join(outputs)

    def mitigate(self, page: str, having: str = "", **names: str) -> None:
        """Run the commands under Mitigation that contain `having`."""
        lines = [line for line in section(page, "Mitigation") if having in line]
        assert lines, f"{page} has no mitigation with {having!r}"
        for line in lines:
            self.run(line, **names)

    def deploy(self, words: list[str]) -> str:
        """Replace replicas that have exited or have other settings; start or reload the gateway."""
        if "--status" in words:
            return self.docker(["ps"])
        if "--rollback" in words:
            self.settings = dict(self.before)
        for sandbox in self.world.sandboxes:
            if not sandbox.runs_with(self.settings):
                sandbox.replace(self.settings)
        self.before = dict(self.settings)
        gateway = self.world.stack.programs["gateway"]
        if gateway.process is None:
            gateway.start()
        else:
            gateway.reload()
        return "deployed\n"

    def docker(self, words: list[str]) -> str:
        """The output of `docker WORDS`."""
        monitoring = "monitoring/docker-compose.yml" in words
        if words[0] == "compose":
            words = [word for word in words[1:] if word not in OF_COMPOSE]
            return self._compose(words, monitoring)
        verb, *rest = words
        actions: dict[str, Callable[[], str]] = {
            "ps": self._list,
            "exec": lambda: self.sandbox(rest[0]).run(rest[1:]),
            "restart": lambda: self.sandbox(rest[0]).replace(self.settings),
            "unpause": lambda: self.sandbox(rest[0]).unpause(),
            "inspect": lambda: self._inspect(rest),
            "network": self._network,
            "info": lambda: f"{self.world.sandboxes[-1].disk}\n",
            "image": lambda: "".join(one.prune() for one in self.world.sandboxes),
            "system": lambda: "",
            "stats": self._list,
        }
        return actions[verb]()

    def sandbox(self, name: str) -> Sandbox:
        """The one of a container."""
        return self.world.sandboxes[list(self.replicas()).index(name)]

    def _list(self) -> str:
        rows = [
            f"{name} {one.state()} {one.service.url}\n"
            for name, one in zip(self.replicas(), self.world.sandboxes, strict=True)
        ]
        return "NAMES STATUS ADDRESS\n" + "".join(rows)

    def _network(self) -> str:
        return json.dumps({name: one.url for name, one in self.replicas().items()}) + "\n"

    def _inspect(self, words: list[str]) -> str:
        known = dict(zip(self.replicas(), self.world.sandboxes, strict=True))
        lines = []
        for name in [word for word in words if word in known]:
            status = known[name].service.process.poll()
            fields = {
                "Name": name,
                "RestartCount": known[name].restarts,
                "ExitCode": status or 0,
                "OOMKilled": known[name].out_of_memory(),
                "LogConfig": "json-file",
            }
            line = words[1]
            for field, value in fields.items():
                line = re.sub(rf"{{{{[\w.]*\.{field}}}}}", str(value), line)
            lines.append(line)
        return "\n".join(lines) + "\n"

    def _compose(self, words: list[str], monitoring: bool) -> str:
        verb, *rest = words
        names = [word for word in rest if re.fullmatch(r"[a-z][a-z-]+", word)]
        if verb in ("exec", "run") and names[0] == "kronos-api":
            return self.world.sandboxes[0].run(rest[rest.index("kronos-api") + 1 :])
        if verb == "exec":
            port = str(self.world.redis.port)
            command = ["redis-cli", "-p", port, *rest[2:]]
            done = subprocess.run(command, capture_output=True, text=True)
            return done.stdout + done.stderr
        if verb == "logs":
            return self._logs(names, monitoring)
        if verb == "ps":
            if "--quiet" in rest:
                return "\n".join(self.replicas()) + "\n"
            return self._programs() if monitoring or names != ["kronos-api"] else self._list()
        assert verb in ("up", "restart"), words
        if names == ["redis"]:
            self.world.start_redis(self.redis_memory)
        for name, program in self.world.stack.programs.items() if monitoring else ():
            if verb == "restart" and name in names:
                program.stop()
            if program.process is None and (not names or name in names):
                program.start()
        return ""

    def _logs(self, names: list[str], monitoring: bool) -> str:
        """The last lines of the logs."""
        if names == ["kronos-api"]:
            logs = {name: one.log for name, one in self.replicas().items()}
        else:
            programs = self.world.stack.programs
            known = {"nginx": "gateway"} if not monitoring else {}
            chosen = [known.get(name, name) for name in names] or list(programs)
            logs = {name: programs[name].log for name in chosen if name in programs}
        return "".join(
            f"{name} | {line}\n"
            for name, log in logs.items()
            for line in log.read_text("utf-8", "replace").splitlines()[-2000:]
        )

    def _programs(self) -> str:
        states = {name: one.process is not None for name, one in self.world.stack.programs.items()}
        states["redis"] = self.world.redis.running()
        return "".join(f"{name} {'Up' if up else 'Exited'}\n" for name, up in states.items())
