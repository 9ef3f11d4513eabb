"""Where the time of forecasts goes: GEMMs, attention, element-wise work, sampling, and the rest.

Beside each share stands its floor on this machine: arithmetic at the rate of a large GEMM of that
precision, or the bytes that have to be read at the memory bandwidth, whichever takes longer. The
rates are measured in the same run. Shares are measured by timers around the engine's own functions,
which cost some microseconds a call.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.floor import Machine, best_of, measure_machine
from benchmarks.report import parser, print_row, processor, write_json
from kronos_api.engine import engine as engine_module
from kronos_api.engine import tokenizer_runner
from kronos_api.engine.build import build_engine
from kronos_api.engine.engine import Engine
from kronos_api.engine.int8 import Int8Linear
from kronos_api.engine.kernels import choose_kernels
from kronos_api.engine.kernels.plain import PlainKernels
from kronos_api.engine.kv_cache import KVCache
from kronos_api.engine.linear import MKLLinear, OneDNNLinear, PlainLinear
from tests.oracle import make_oracle, walk

HISTORY, HORIZON = 400, 24
CASES = {"1 forecast": (1, 1), "1 forecast of 30 paths": (1, 30), "16 forecasts": (16, 1)}
WIDTHS = (26, 12, 8, 12)
DECODE_ROWS = 64
"""A GEMM of more rows belongs to prefill: decode steps here have 30 at most."""


class Shares:
    """Seconds and floors by what is computed; the time of an inner timer is not counted twice."""

    def __init__(self, machine: Machine, int8_flops: float, size: int) -> None:
        self.flops = machine.flops
        self.int8_flops = int8_flops
        self.bandwidth = machine.bandwidth
        self.size = size  # bytes of a weight, a key and a value outside of int8 layers
        self.seconds: dict[str, float] = defaultdict(float)
        self.floors: dict[str, float] = defaultdict(float)
        self._inner: list[float] = []
        self._kinds: list[str] = []

    def wrap(self, owner: Any, name: str, note: Callable[..., tuple[str, float]]) -> None:
        """Time every call of `owner.name`; `note` gives its kind and floor from its arguments."""
        run = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            kind, floor = note(*args, **kwargs)
            if kind not in self._kinds:  # else counted by the call around this one
                self.floors[kind] += floor
            self._inner.append(0.0)
            self._kinds.append(kind)
            started = time.perf_counter()
            try:
                return run(*args, **kwargs)
            finally:
                passed = time.perf_counter() - started
                self._kinds.pop()
                self.seconds[kind] += passed - self._inner.pop()
                if self._inner:
                    self._inner[-1] += passed

        setattr(owner, name, timed)

    def linear(self, layer: Any, x: Any, *_: Any) -> tuple[str, float]:
        """A GEMM of the rows of `x` with the weights of `layer`."""
        rows, inputs = getattr(x, "codes", x).shape
        outputs = layer.outputs
        narrow = isinstance(layer, Int8Linear)
        arithmetic = 2 * rows * inputs * outputs / (self.int8_flops if narrow else self.flops)
        if rows > DECODE_ROWS:
            return "GEMMs of prefill", arithmetic
        read = inputs * outputs * (1 if narrow else self.size) / self.bandwidth
        return "GEMMs of decode steps", max(arithmetic, read)

    def attention(
        self,
        _kernels: Any,
        query: torch.Tensor,
        _layer: int,
        caches: Sequence[KVCache],
        q_len: int,
        *_: Any,
    ) -> tuple[str, float]:
        """Attention of `q_len` queries a row to all positions before them."""
        width = query.shape[1]
        if q_len > 1:
            pairs = sum(c.batch_size * q_len * (c.position + q_len / 2) for c in caches)
            return "attention of prefill", 4 * pairs * width / self.flops
        shared = sum(0 if c.prefix is None else c.prefix.shape[3] for c in caches)
        positions = shared + sum(c.batch_size * c.length for c in caches)
        return "attention of decode steps", positions * 2 * width * self.size / self.bandwidth


def instrument(shares: Shares) -> None:
    """Put timers around the engine's functions."""
    for owner in (OneDNNLinear, MKLLinear, PlainLinear, Int8Linear):
        names = [name for name in ("__call__", "silu", "add", "mul") if hasattr(owner, name)]
        remember_outputs(owner)
        for name in names:
            shares.wrap(owner, name, shares.linear)
    for kernel in {PlainKernels, type(choose_kernels("cpu", torch.float32))}:
        own = vars(kernel)
        if "attend" in own:
            shares.wrap(kernel, "attend", shares.attention)
        for name in (
            "rms_norm",
            "rotate_and_store",
            "quantise",
            "quantise_normed",
            "quantise_swiglu",
        ):
            if name in own:
                shares.wrap(kernel, name, lambda *_: ("element-wise", 0.0))
    shares.wrap(engine_module, "sample", lambda *_: ("sampling", 0.0))
    for name in ("encode", "decode", "fill_decoder"):
        shares.wrap(
            tokenizer_runner.TokenizerRunner, name, lambda *_: ("rest of the tokenizer", 0.0)
        )


def remember_outputs(owner: Any) -> None:
    """Let every layer keep the number of its outputs, N."""
    create = owner.__init__

    def keeping(layer: Any, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        create(layer, weight, bias)
        layer.outputs = len(weight)

    owner.__init__ = keeping


def run(engine: Engine, forecasts: int, samples: int) -> None:
    """Run equal forecasts together to their end."""
    request = walk(HISTORY).request(HORIZON, sample_count=samples, top_k=0, top_p=0.9)
    sequences = [engine.start(request) for _ in range(forecasts)]
    while pending := [sequence for sequence in sequences if not sequence.ended]:
        engine.step(pending)


def int8_rate() -> float:
    """Operations a second of a large int8 GEMM."""
    linear = Int8Linear(torch.randn(2048, 2048), None)
    rows = PlainKernels().quantise(torch.randn(1024, 2048))
    return 2 * 1024 * 2048 * 2048 / best_of(10, lambda: linear(rows))


def main() -> None:
    """Print one table a case."""
    made = parser("profile", __doc__)
    made.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "int8"])
    options = made.parse_args()
    torch.set_num_threads(options.threads)
    machine = measure_machine()
    narrow = int8_rate() if options.dtype == "int8" else machine.flops
    shares = Shares(machine, narrow, 2 if options.dtype == "bfloat16" else 4)
    instrument(shares)
    figures: dict[str, Any] = {}
    with TemporaryDirectory() as folder, torch.inference_mode():
        sources = make_oracle(options.shape, Path(folder)).sources
        engine = build_engine(*sources, dtype=options.dtype, torch_threads=options.threads)
        print(
            f"{processor()}, {options.threads} threads, Kronos-{options.shape} shape,"
            f" {engine.info.dtype}, {engine.info.kernels} kernels; GFLOP/s:"
            f" {machine.flops / 1e9:.0f} in float32, {narrow / 1e9:.0f} in {options.dtype};"
            f" {machine.bandwidth / 1e9:.0f} GB/s"
        )
        for case, (forecasts, samples) in CASES.items():
            run(engine, forecasts, samples)
            shares.seconds.clear()
            shares.floors.clear()
            started = time.perf_counter()
            run(engine, forecasts, samples)
            figures[case] = table(case, forecasts, time.perf_counter() - started, shares)
    write_json(options.json, "profile", figures)


def table(case: str, forecasts: int, total: float, shares: Shares) -> dict[str, list[float]]:
    """Print the shares of one case: milliseconds a forecast, percent, floor in milliseconds."""
    print(f"\n{case} of {HISTORY} → {HORIZON}")
    print_row(["", "ms each", "%", "floor, ms"], WIDTHS)
    seconds = {**shares.seconds, "rest": total - sum(shares.seconds.values())}
    figures = {}
    for kind in sorted(seconds, key=lambda kind: -seconds[kind]):
        spent, floor = seconds[kind] / forecasts * 1e3, shares.floors[kind] / forecasts * 1e3
        figures[kind] = [spent, floor]
        print_row(
            [kind, f"{spent:.1f}", f"{100 * seconds[kind] / total:.0f}", f"{floor:.1f}"], WIDTHS
        )
    print_row(["total", f"{total / forecasts * 1e3:.1f}", "100", ""], WIDTHS)
    return figures


if __name__ == "__main__":
    main()
