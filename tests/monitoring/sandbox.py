"""A replica with what a container gives it: /dev/shm, memory, and a log on a disk of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

import psutil

from tests.processes import start_service, until

MEMORY: Final = Path("/sys/fs/cgroup/memory")
"""The memory controller of control groups, version 1."""
ISOLATED: Final = (
    os.geteuid() == 0
    and all(map(shutil.which, ("unshare", "nsenter", "mount")))
    and (MEMORY / "memory.limit_in_bytes").exists()
    and os.access(MEMORY, os.W_OK)
)
ENTER: Final = """
mount -t tmpfs -o size={shm} tmpfs /dev/shm &&
echo $$ >{group}/cgroup.procs && mount --bind {group} {memory} && exec "$@"
"""
LIMITS: Final = {"MEMORY_LIMIT": "-1", "SHM_SIZE": "16m"}
"""What compose gives to the container, and not to the process."""


class Sandbox:
    """One replica as a container of the host. Without `ISOLATED`, a plain process."""

    def __init__(
        self, folder: Path, number: int, command: Sequence[str], settings: dict[str, str]
    ) -> None:
        # Not among pytest's folders: it could not remove a mount of an interrupted run.
        self.disk = Path(tempfile.mkdtemp(prefix="kronos-test-disk-"))
        """Where Docker keeps its log and the images; 8 MiB."""
        self.group = MEMORY / f"kronos-test-{os.getpid()}-{number}"
        self.command = command
        self.restarts = 0
        self.stop_grace = 120.0
        """Seconds until it is killed, as by `stop_grace_period`."""
        self.settings: dict[str, str] = {}
        """Those of the latest deployment."""
        if ISOLATED:
            self.group.mkdir()
            subprocess.run(
                ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", self.disk], check=True
            )
        own = {"RATE_LIMIT_DIR": str(folder)} | settings
        self.service = start_service(self.disk, 1, self._wrapped({}), **own)

    def _wrapped(self, settings: dict[str, str]) -> Sequence[str]:
        if not ISOLATED:
            return self.command
        limits = LIMITS | settings
        (self.group / "memory.limit_in_bytes").write_text(limits["MEMORY_LIMIT"])
        enter = ENTER.format(shm=limits["SHM_SIZE"], group=self.group, memory=MEMORY)
        return ("unshare", "--mount", "sh", "-c", enter, "sh", *self.command)

    def processes(self) -> list[psutil.Process]:
        """The main process and its workers; none if it has exited."""
        try:
            main = psutil.Process(self.service.process.pid)
            return [main, *main.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def state(self) -> str:
        """As `docker ps` has it."""
        if (status := self.service.process.poll()) is not None:
            return f"Exited ({status})"
        paused = self.processes()[0].status() == psutil.STATUS_STOPPED
        return "Up (Paused)" if paused else "Up"

    def pause(self) -> str:
        """Stop all processes, as `docker pause` does."""
        for process in self.processes():
            process.suspend()
        return ""

    def unpause(self) -> str:
        """Let them go on."""
        for process in self.processes():
            process.resume()
        return ""

    def replace(self, settings: dict[str, str]) -> str:
        """Start it again with these settings, on the same port, and wait until it is ready."""
        loads = self._loads()
        self.restart(settings)
        until(lambda: self._loads() > loads)
        self.service.wait_until_it_listens()
        return ""

    def runs_with(self, settings: dict[str, str]) -> bool:
        """Whether it runs, and with these settings."""
        return self.service.process.poll() is None and self.settings == settings

    def restart(self, settings: dict[str, str]) -> None:
        """Start it again with these settings, on the same port."""
        self.unpause()
        processes = self.processes()
        self.service.process.terminate()
        _, alive = psutil.wait_procs(processes, self.stop_grace)
        for process in alive:
            process.kill()
        self.service.process.wait(120)
        self.settings = dict(settings)
        named = {
            name if name.startswith(("GUNICORN_", "PACED_")) else f"KRONOS_{name}": value
            for name, value in settings.items()
            if name not in LIMITS
        }
        with self.service.log.open("ab") as output:
            self.service.process = subprocess.Popen(
                self._wrapped(settings),
                env=self.service.environment | named,
                cwd=self.disk,
                stdout=output,
                stderr=output,
            )
        self.restarts += 1

    def _loads(self) -> int:
        """How often a model was loaded; a full disk has torn lines, which are no JSON."""
        return self.service.log.read_bytes().count(b'"event": "model_ready"')

    def fill_disk(self) -> None:
        """Leave no space for log lines."""
        with suppress(OSError), (self.disk / "image-old").open("wb") as image:
            while True:
                image.write(bytes(65536))
                image.flush()

    def fill_shm(self) -> None:
        """Leave a tenth of /dev/shm free."""
        size = os.statvfs(self.path("/dev/shm"))
        self.path("/dev/shm/other").write_bytes(bytes(size.f_bavail * size.f_frsize * 9 // 10))

    def limit_memory(self) -> None:
        """Allow hardly more memory than is used."""
        limit = self.group / "memory.limit_in_bytes"
        limit.write_text(str(int(self.used_memory() / 0.93)))

    @staticmethod
    def limit_descriptors(pid: int) -> None:
        """Allow a worker hardly more file descriptors than it has open."""
        process = psutil.Process(pid)
        _, hard = process.rlimit(psutil.RLIMIT_NOFILE)
        process.rlimit(psutil.RLIMIT_NOFILE, (process.num_fds() * 8 // 7 + 1, hard))

    def prune(self) -> str:
        """Remove old images."""
        for image in self.disk.glob("image-*"):
            image.unlink()
        return "Total reclaimed space\n"

    def run(self, command: list[str]) -> str:
        """The output of a command inside, as `docker exec` runs it."""
        program, *arguments = command
        inside = {"python": [sys.executable], "kronos-api": [sys.executable, "-m", "kronos_api"]}
        command = [*inside.get(program, [program]), *arguments]
        enter = ("nsenter", "--mount", f"--target={self.service.process.pid}")
        done = subprocess.run(
            (*(enter if ISOLATED else ()), *command),
            env=self.service.environment,
            cwd=self.disk,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"{command}: {done.stdout}{done.stderr}")
        return done.stdout

    def used_memory(self) -> int:
        """Bytes, without file pages that can be dropped."""
        statistics = (self.group / "memory.stat").read_text().split()
        used = int((self.group / "memory.usage_in_bytes").read_text())
        return used - int(statistics[statistics.index("total_inactive_file") + 1])

    def out_of_memory(self) -> bool:
        """Whether the kernel has killed a process for its memory."""
        return ISOLATED and "oom_kill 0" not in (self.group / "memory.oom_control").read_text()

    def path(self, inside: str) -> Path:
        """A path inside, as seen from here."""
        return Path(f"/proc/{self.service.process.pid}/root{inside}")

    def end(self) -> None:
        """End it and remove what it had."""
        self.unpause()
        workers: list[psutil.Process] = []
        with suppress(psutil.NoSuchProcess):
            workers = psutil.Process(self.service.process.pid).children(recursive=True)
        self.service.process.terminate()
        try:
            self.service.process.wait(120)
        finally:
            self.service.kill()
            for worker in workers:
                with suppress(psutil.NoSuchProcess):
                    worker.kill()
            psutil.wait_procs(workers, 30)
            if ISOLATED:
                subprocess.run(["umount", "--lazy", self.disk], check=True)
                self.group.rmdir()
            shutil.rmtree(self.disk)


@contextmanager
def sandboxes(
    folder: Path, count: int, command: Sequence[str], settings: dict[str, str]
) -> Iterator[list[Sandbox]]:
    """Replicas that are ready."""
    with ExitStack() as ends:
        running = []
        for number in range(1, count + 1):
            running.append(Sandbox(folder, number, command, settings))
            ends.callback(running[-1].end)
        for one in running:
            one.service.wait_for("model_ready")
            one.service.wait_until_it_listens()
        yield running
