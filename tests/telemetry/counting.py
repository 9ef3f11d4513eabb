"""Processes that create a metrics directory and that count in it, as master and workers do.

`python -m tests.telemetry.counting DIRECTORY [PID]` counts. It reads commands from its input, a
line each, and answers each with a line. With PID, `os.getpid` returns that number in it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog
from prometheus_client.parser import text_string_to_metric_families

from kronos_api.telemetry import process_metrics
from kronos_api.telemetry.metrics import metrics
from kronos_api.telemetry.slots import Slots

ROOT = Path(__file__).resolve().parents[2]

Sample = tuple[str, tuple[tuple[str, str], ...]]

CREATE = """
import sys
from pathlib import Path
from kronos_api.errors import StartupError
from kronos_api.telemetry.directory import create_directory
try:
    print(create_directory(Path({parent!r})), flush=True)
except StartupError as error:
    sys.exit(str(error))
"""
HOLD = CREATE + "sys.stdin.read()\n"


def creating(parent: Path, script: str = HOLD) -> subprocess.Popen[str]:
    """A process that creates a directory in `parent`; by default it lives until it is ended."""
    return subprocess.Popen(
        [sys.executable, "-c", script.format(parent=str(parent))],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def created(process: subprocess.Popen[str]) -> Path:
    """The directory that it has created."""
    assert process.stdout is not None
    return Path(process.stdout.readline().rstrip("\n"))


def files(directory: Path) -> set[str]:
    """Names of the files in it."""
    return {path.name for path in directory.iterdir()}


class Counting:
    """A counting process, as a test sees it. It ends with the `with` block, if not before."""

    def __init__(self, directory: Path, pid: int | None = None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(directory), *([str(pid)] if pid else [])],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def __enter__(self) -> Self:
        assert self._answer() == "up"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()

    def command(self, line: str) -> str:
        """Have `line` done; returns the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._answer()

    def samples(self) -> dict[Sample, float]:
        """The samples of all processes, as it renders them."""
        text: str = json.loads(self.command("render"))
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def kill(self) -> list[str]:
        """Kill it; returns the answers that were not read."""
        self._process.kill()
        assert self._process.stdout is not None
        unread = [] if self._process.stdout.closed else self._process.stdout.read().splitlines()
        self._process.communicate()
        return unread

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().rstrip("\n")


def main() -> None:
    """Read commands and answer them."""
    directory, *pid = sys.argv[1:]
    if pid:
        os.getpid = lambda: int(pid[0])
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    metrics.share(Slots(Path(directory)))

    answer("up")
    for line in sys.stdin:
        command, *words = line.split()
        match command:
            case "count":
                for _ in range(int(words[0])):
                    metrics.requests.labels("/counted", "200").inc()
                    metrics.request_duration.labels("/counted").observe(0.3)
                answer("counted")
            case "count-on":
                metrics.requests.labels("/counted", "200").inc(0)
                while True:
                    metrics.requests.labels("/counted", "200").inc()
                    answer("counted")
            case "set":
                metrics.queue_depth.set(int(words[0]))
                metrics.model_info.labels("m", "t", "cpu", "float32", "true").set(1)
                process_metrics.record_process()
                answer("set")
            case "begin":
                metrics.workers.set(1)
                answer("begun")
            case "restore":
                metrics.restore_files()
                answer("restored")
            case "end":
                metrics.workers.set(0)
                answer("ended")
            case "fork":
                child = os.fork()
                if child == 0:
                    metrics.requests.labels("/counted", "200").inc(int(words[0]))
                    os._exit(0)
                answer(str(os.waitpid(child, 0)[1]))
            case "drop-dead-gauges":
                metrics.drop_dead_gauges()
                answer("dropped")
            case "render":
                answer(json.dumps(metrics.render().decode()))


def answer(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
