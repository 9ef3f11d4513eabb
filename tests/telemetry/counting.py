"""Processes that prepare and that count, as master and workers do.

`python -m tests.telemetry.counting` counts.

It takes orders from its input, a line each, and answers each with a line. Given a process id as
its argument, it believes that to be its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from prometheus_client.parser import text_string_to_metric_families

from kronos_api.telemetry.multiprocess import VARIABLE

ROOT = Path(__file__).resolve().parents[2]

Sample = tuple[str, tuple[tuple[str, str], ...]]

PREPARE = """
import sys
from pathlib import Path
from kronos_api.errors import StartupError
from kronos_api.telemetry.multiprocess import prepare
try:
    print(prepare(Path({parent!r})), flush=True)
except StartupError as error:
    sys.exit(str(error))
"""
HOLD = PREPARE + "sys.stdin.read()\n"


def preparing(parent: Path, script: str = HOLD) -> subprocess.Popen[str]:
    """A process that prepares a folder in `parent`; by default it lives until it is ended."""
    return subprocess.Popen(
        [sys.executable, "-c", script.format(parent=str(parent))],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def prepared(process: subprocess.Popen[str]) -> Path:
    """The folder that it has prepared."""
    assert process.stdout is not None
    return Path(process.stdout.readline().rstrip("\n"))


def files(folder: Path) -> set[str]:
    """What is in it, by name."""
    return {path.name for path in folder.iterdir()}


class Counting:
    """Such a process, as a test sees it. It ends with the `with` block, if not before."""

    def __init__(self, folder: Path, pid: int | None = None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, *([str(pid)] if pid else [])],
            cwd=ROOT,
            env=dict(os.environ) | {VARIABLE: str(folder)},
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

    def order(self, line: str) -> str:
        """Have `line` done; the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._answer()

    def samples(self) -> dict[Sample, float]:
        """What it tells of all processes."""
        text: str = json.loads(self.order("render"))
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def kill(self) -> list[str]:
        """End it as the system would; the answers that it gave and nobody heard."""
        self._process.kill()
        assert self._process.stdout is not None
        unheard = [] if self._process.stdout.closed else self._process.stdout.read().splitlines()
        self._process.communicate()
        return unheard

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().rstrip("\n")


def main() -> None:
    """Do as ordered."""
    if sys.argv[1:]:
        believed = int(sys.argv[1])
        os.getpid = lambda: believed

    import structlog

    from kronos_api.telemetry import metrics, process_metrics

    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))

    answer("up")
    for line in sys.stdin:
        order, *words = line.split()
        match order:
            case "count":
                for _ in range(int(words[0])):
                    metrics.REQUESTS.labels("/counted", "200").inc()
                    metrics.REQUEST_DURATION.labels("/counted").observe(0.3)
                answer("counted")
            case "count-on":
                metrics.REQUESTS.labels("/counted", "200").inc(0)
                while True:
                    metrics.REQUESTS.labels("/counted", "200").inc()
                    answer("counted")
            case "set":
                metrics.QUEUE_DEPTH.set(int(words[0]))
                metrics.MODEL_INFO.labels("m", "t", "cpu", "float32", "true").set(1)
                process_metrics.note_process()
                answer("set")
            case "begin":
                metrics.begin()
                answer("begun")
            case "mend":
                metrics.mend()
                answer("mended")
            case "end":
                metrics.end()
                answer("ended")
            case "fork":
                child = os.fork()
                if child == 0:
                    metrics.REQUESTS.labels("/counted", "200").inc(int(words[0]))
                    os._exit(0)
                answer(str(os.waitpid(child, 0)[1]))
            case "render":
                answer(json.dumps(metrics.render().decode()))


def answer(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
