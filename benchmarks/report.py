"""Tables on the terminal and figures as JSON, for every benchmark alike."""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch


def parser(name: str, doc: str | None) -> argparse.ArgumentParser:
    """An argument parser with the options that every benchmark has."""
    made = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=doc)
    made.add_argument("--shape", default="small", choices=["tiny", "mini", "small", "base"])
    made.add_argument("--threads", type=int, default=torch.get_num_threads())
    made.add_argument("--json", help="write the figures to this file")
    return made


def processor() -> str:
    """The name of the processor and how many cores there are."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return f"{line.partition(':')[2].strip()}, {os.cpu_count()} cores"
    return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def print_row(cells: Sequence[object], widths: Sequence[int]) -> None:
    """Print one row of a table, right-aligned."""
    shown = (f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in cells)
    print(
        "  ".join(text.rjust(width) for text, width in zip(shown, widths, strict=True)), flush=True
    )


def write_json(path: str | None, name: str, figures: object) -> None:
    """Write `figures` with what they were measured on, if a path is given."""
    if path is None:
        return
    machine = {
        "cores": os.cpu_count(),
        "processor": platform.machine(),
        "torch": torch.__version__,
        "capability": torch.backends.cpu.get_cpu_capability(),
    }
    Path(path).write_text(
        json.dumps({"benchmark": name, "machine": machine, "figures": figures}, indent=1) + "\n"
    )
