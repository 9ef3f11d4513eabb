"""The engine on a GPU: time of each case and precision, seeds under load, parity with the CPU.

Seconds are the best of several runs on random weights. "Times faster" compares with the published
implementation in float32 on the same GPU. The floor is that of `benchmarks.floor`, with both rates
measured on the GPU.
Exits with 1 if a seeded forecast differs between a run alone and a run among others.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.engine import CASES, Case, published
from benchmarks.floor import Machine, best_of, count_cost
from benchmarks.report import parser, print_row, write_json
from kronos_api.checkpoints.loader import load_model, load_tokenizer
from kronos_api.engine.build import build_engine
from kronos_api.engine.engine import Engine
from kronos_api.engine.request import ForecastRequest
from kronos_api.model import Kronos, KronosTokenizer
from tests.oracle import SHAPES, make_oracle, walk

Figures = dict[str, list[float]]
Plain = tuple[Kronos, KronosTokenizer]
CROWDS = (16, 64, 256)
DTYPES = ("float32", "bfloat16")
SEEDED = 200
WIDTHS = (28, 10, 11, 13, 12, 12)


def waited(run: Callable[[], object]) -> Callable[[], None]:
    """`run`, and all that it started on the GPU."""

    def whole() -> None:
        run()
        torch.cuda.synchronize()

    return whole


def measure_gpu(dtype: torch.dtype) -> Machine:
    """Rates of a large GEMM in `dtype`, and of reading memory."""
    left = torch.randn(8192, 8192, device="cuda", dtype=dtype)
    block = torch.ones(1 << 29, device="cuda")
    gemm, read = waited(lambda: left @ left), waited(block.sum)
    return Machine(2 * 8192**3 / best_of(10, gemm), block.nbytes / best_of(10, read))


def together(engine: Engine, requests: list[ForecastRequest]) -> list[list[int]]:
    """Run all of `requests` as batch-mates; the tokens of each."""
    running = [engine.start(request) for request in requests]
    while not all(sequence.ended for sequence in running):
        engine.step([sequence for sequence in running if not sequence.ended])
    for sequence in running:
        if sequence.failure is not None:
            raise sequence.failure
    return [_tokens(sequence.s1, sequence.s2) for sequence in running]


def _tokens(s1: torch.Tensor, s2: torch.Tensor) -> list[int]:
    return [*s1.flatten().tolist(), *s2.flatten().tolist()]


def seeded(context: int) -> list[ForecastRequest]:
    """Requests with histories, horizons, paths and parameters that differ, each with a seed."""
    numbers = np.random.default_rng(0)
    return [
        walk(int(numbers.integers(8, context // 2))).request(
            int(numbers.integers(1, 24)),
            sample_count=int(numbers.choice([1, 1, 2, 5])),
            top_k=int(numbers.choice([0, 20])),
            top_p=float(numbers.choice([0.9, 1.0])),
            seed=seed,
        )
        for seed in range(SEEDED)
    ]


def repeated(engine: Engine, context: int) -> int:
    """How many seeded forecasts have the same tokens alone and among 31 others."""
    requests, equal = seeded(context), 0
    order = np.random.default_rng(1).permutation(SEEDED)
    for first in range(0, SEEDED, 32):
        chosen = [requests[index] for index in order[first : first + 32]]
        alone = [_tokens(done.s1, done.s2) for done in map(engine.run, chosen)]
        equal += sum(a == b for a, b in zip(alone, together(engine, chosen), strict=True))
    return equal


def forecasts(engine: Engine, dtype: str, plain: Plain, slow: dict[Case, float]) -> Figures:
    """Print and return a row for each case."""
    measured, figures = measure_gpu(getattr(torch, dtype)), {}
    for case in CASES:
        request = walk(case.history).request(
            case.horizon, sample_count=case.sample_count, top_k=0, top_p=0.9
        )
        ours = best_of(5, waited(partial(engine.run, request)))
        cost = count_cost(*plain, case.history, case.horizon, case.sample_count)
        read = cost.weight_bytes // 4 * getattr(torch, dtype).itemsize
        floor = replace(cost, weight_bytes=read).seconds(measured)
        name = f"{case.history} x {case.horizon}, {case.sample_count} paths"
        figures[name] = [ours, slow[case] / ours, floor, ours / floor]
        print_row([name, dtype, *figures[name]], WIDTHS)
    print(f"{measured.flops / 1e12:.1f} TFLOP/s, {measured.bandwidth / 1e9:.0f} GB/s")
    return figures


def crowds(engine: Engine, dtype: str) -> Figures:
    """Print and return seconds a forecast of many that run together."""
    figures = {}
    for count in CROWDS:
        crowd = [walk(400).request(24, top_k=0, top_p=0.9)] * count
        ours = best_of(2, waited(partial(together, engine, crowd))) / count
        name = f"{count} together, of each"
        figures[name] = [ours]
        print_row([name, dtype, ours, "", "", ""], WIDTHS)
    return figures


def agreeing(left: Engine, right: Engine) -> str:
    """Greedy forecasts of 24 candles with the same tokens in both engines, of 20."""
    made = [walk(40 + 18 * n).request(24) for n in range(20)]
    same = 0
    for request in made:
        one, other = left.run(request), right.run(request)
        same += _tokens(one.s1, one.s2) == _tokens(other.s1, other.s2)
    return f"{same} of {len(made)}"


def _published_seconds(folder: Path, context: int, case: Case) -> float:
    run = published(folder, context, walk(case.history), case, "cuda:0")
    return best_of(2, waited(run))


def main() -> int:
    """Print the tables."""
    options = parser("gpu", __doc__).parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("benchmarks.gpu: torch finds no GPU")
    context, failed = SHAPES[options.shape].context, 0
    figures: dict[str, Figures] = {}
    name = torch.cuda.get_device_name()
    print(f"{name}, Kronos-{options.shape} shape, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        oracle = make_oracle(options.shape, Path(folder))
        plain = load_model(oracle.sources[0])[0], load_tokenizer(oracle.sources[1])[0]
        slow = {case: _published_seconds(Path(folder), context, case) for case in CASES}
        on_cpu = build_engine(*oracle.sources, device="cpu", max_context=context)
        print_row(["case", "dtype", "seconds", "times faster", "floor", "times floor"], WIDTHS)
        for dtype in DTYPES:
            sources = oracle.sources
            engine = build_engine(*sources, device="cuda:0", dtype=dtype, max_context=context)
            figures[dtype] = forecasts(engine, dtype, plain, slow) | crowds(engine, dtype)
            equal = repeated(engine, context)
            failed += SEEDED - equal
            figures[dtype]["seeds"] = [equal]
            print(f"{dtype}: {equal} of {SEEDED} seeds have the same tokens alone and in a batch;")
            print(f"greedy tokens equal those of float32 on the CPU: {agreeing(engine, on_cpu)}")
    write_json(options.json, "gpu", figures)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
