"""The engine against the published implementation and against the floor, on random weights.

Prints the machine's rates, then a row a case: seconds of both, their ratio, and how far ours is
above the floor. Each side runs in a process of its own, whose peak memory is shown.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from benchmarks.floor import best_of, count_cost, measure_machine
from benchmarks.report import parser, write_json
from kronos_api.checkpoints.info import Source
from kronos_api.checkpoints.loader import load_model, load_tokenizer
from kronos_api.engine.build import build_engine
from tests.oracle import SHAPES, Series, make_oracle, walk


@dataclass(frozen=True, slots=True)
class Case:
    """One forecast."""

    history: int
    horizon: int
    sample_count: int


@dataclass(frozen=True, slots=True)
class Row:
    """Measurements of one case; times in seconds, memory in MB."""

    case: Case
    ours: float
    theirs: float
    floor: float
    our_peak_mb: float
    their_peak_mb: float


CASES = (Case(400, 24, 1), Case(400, 112, 1), Case(400, 24, 30))
HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
"""As the images and scripts/serve set it, for both sides."""
ENOUGH = 20.0
"""Seconds of runs after which a side is not repeated."""
HEAD = (
    "history  horizon  samples  published      ours  times faster     floor  times floor"
    "  peak MB: published  ours"
)


def main() -> None:
    """Run every case, or one side of one case in a process of its own."""
    options = _parse()
    torch.set_num_threads(options.threads)
    if options.side:
        _run_side(options)
        return
    with tempfile.TemporaryDirectory() as folder:
        options.folder = folder
        machine = measure_machine()
        print(
            f"Kronos-{options.shape} shape, float32, {options.threads} threads:"
            f" {machine.flops / 1e9:.0f} GFLOP/s, {machine.bandwidth / 1e9:.0f} GB/s"
        )
        print(HEAD)
        oracle = make_oracle(options.shape, Path(folder))
        model, _ = load_model(oracle.sources[0])
        tokenizer, _ = load_tokenizer(oracle.sources[1])
        rows = []
        for case in CASES[: options.cases]:
            cost = count_cost(model, tokenizer, case.history, case.horizon, case.sample_count)
            ours, our_peak = _measure("ours", case, options)
            theirs, their_peak = _measure("published", case, options)
            machine = measure_machine(machine)
            rows.append(Row(case, ours, theirs, cost.seconds(machine), our_peak, their_peak))
            _print(rows[-1])
        figures = {"machine": asdict(machine), "rows": [asdict(row) for row in rows]}
        write_json(options.json, "engine", figures)


def _print(row: Row) -> None:
    case = row.case
    print(
        f"{case.history:7d}  {case.horizon:7d}  {case.sample_count:7d}  {row.theirs:7.2f} s"
        f"  {row.ours:6.3f} s  {row.theirs / row.ours:10.1f} x  {row.floor:6.3f} s"
        f"  {row.ours / row.floor:9.2f} x  {row.their_peak_mb:18.0f}  {row.our_peak_mb:4.0f}",
        flush=True,
    )


def _measure(side: str, case: Case, options: argparse.Namespace) -> tuple[float, float]:
    """Seconds and peak MB of one side, measured in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.engine", "--side", side]
    command += ["--shape", options.shape, "--threads", str(options.threads)]
    command += ["--repeat", str(options.repeat)]
    command += ["--folder", options.folder]
    command += ["--case", str(case.history), str(case.horizon), str(case.sample_count)]
    out = subprocess.run(
        command, check=True, capture_output=True, text=True, env=os.environ | HUGE_PAGES
    ).stdout
    seconds, peak = json.loads(out.splitlines()[-1])
    return seconds, peak


def _run_side(options: argparse.Namespace) -> None:
    case = Case(*options.case)
    series = walk(case.history)
    make = _ours if options.side == "ours" else published
    run = make(Path(options.folder), SHAPES[options.shape].context, series, case)
    times: list[float] = []
    while len(times) < options.repeat and sum(times) < ENOUGH:
        times.append(best_of(1, run))
    print(json.dumps([min(times), _peak_mb()]))


def _peak_mb() -> float:
    """Peak resident memory of this process; ru_maxrss would include its parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def _ours(folder: Path, context: int, series: Series, case: Case) -> Callable[[], object]:
    model = Source("model", "random", folder / "model")
    tokenizer = Source("tokenizer", "random", folder / "tokenizer")
    threads = torch.get_num_threads()
    engine = build_engine(model, tokenizer, max_context=context, torch_threads=threads)
    request = series.request(case.horizon, sample_count=case.sample_count, top_k=0, top_p=0.9)
    return lambda: engine.run(request)


def published(
    folder: Path, context: int, series: Series, case: Case, device: str = "cpu"
) -> Callable[[], object]:
    """One forecast by the published implementation, of the checkpoint in `folder`."""
    import model

    network = model.Kronos.from_pretrained(folder / "model").eval()
    tokenizer = model.KronosTokenizer.from_pretrained(folder / "tokenizer").eval()
    predictor = model.KronosPredictor(network, tokenizer, device=device, max_context=context)
    history = len(series.frame)
    after = series.timestamps[history : history + case.horizon].reset_index(drop=True)
    warnings.simplefilter("ignore")
    return lambda: predictor.predict(
        series.frame,
        series.timestamps[:history],
        after,
        case.horizon,
        T=1.0,
        top_k=0,
        top_p=0.9,
        sample_count=case.sample_count,
        verbose=False,
    )


def _parse() -> argparse.Namespace:
    made = parser("engine", __doc__)
    made.add_argument(
        "--repeat", type=int, default=3, help="runs, while they are short; the best counts"
    )
    made.add_argument("--cases", type=int, default=len(CASES), help="how many of the cases")
    made.add_argument("--folder", help=argparse.SUPPRESS)
    made.add_argument("--side", choices=["ours", "published"], help=argparse.SUPPRESS)
    made.add_argument("--case", type=int, nargs=3, help=argparse.SUPPRESS)
    return made.parse_args()


if __name__ == "__main__":
    main()
