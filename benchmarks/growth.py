"""Growth of time and memory with history, horizon, sample paths and model size."""

from __future__ import annotations

import gc
import tempfile
from pathlib import Path

import psutil
import torch

from benchmarks.floor import best_of
from benchmarks.report import parser, print_row, write_json
from kronos_api.engine.build import build_engine
from kronos_api.engine.engine import Engine
from tests.oracle import make_oracle, walk

HISTORIES, HORIZONS, SAMPLE_COUNTS = (
    (1, 64, 128, 256, 400, 488),
    (1, 24, 112),
    (1, 2, 4, 8, 16, 32, 64),
)
WIDTHS = (8, 8, 8, 8, 10, 14)


def load(shape: str) -> tuple[Engine, float]:
    """An engine of `shape` with random weights, and the MB of memory it took."""
    with tempfile.TemporaryDirectory() as folder:
        sources = make_oracle(shape, Path(folder)).sources
        gc.collect()
        before = psutil.Process().memory_info().rss
        engine = build_engine(*sources, torch_threads=torch.get_num_threads())
        gc.collect()
        return engine, (psutil.Process().memory_info().rss - before) / 2**20


def measure(engine: Engine, history: int, horizon: int, sample_count: int) -> tuple[float, float]:
    """Seconds of a forecast, and MB of keys and values that it holds at most."""
    request = walk(history).request(horizon, top_k=0, top_p=0.9, sample_count=sample_count)
    return best_of(3, lambda: engine.run(request)), engine.kv_cache_bytes(request) / 2**20


def main() -> None:
    """Print one table."""
    options = parser("growth", __doc__).parse_args()
    torch.set_num_threads(options.threads)
    cases = [
        *[("small", history, 24, 1) for history in HISTORIES],
        *[("small", 400, horizon, 1) for horizon in HORIZONS],
        *[("small", 400, 24, count) for count in SAMPLE_COUNTS],
        *[(shape, 400, 24, 1) for shape in ("mini", "base")],
    ]
    print_row(["model", "history", "horizon", "samples", "seconds", "KV cache MB"], WIDTHS)
    engines = {}
    rows = []
    for shape, history, horizon, sample_count in cases:
        if shape not in engines:
            engines[shape] = load(shape)
        seconds, megabytes = measure(engines[shape][0], history, horizon, sample_count)
        print_row([shape, history, horizon, sample_count, seconds, megabytes], WIDTHS)
        rows.append(
            {
                "shape": shape,
                "history": history,
                "horizon": horizon,
                "sample_count": sample_count,
                "seconds": seconds,
                "kv_mb": megabytes,
            }
        )
    loaded = {shape: megabytes for shape, (_, megabytes) in engines.items()}
    for shape, megabytes in loaded.items():
        print(f"a loaded Kronos-{shape} takes {megabytes:.0f} MB of resident memory")
    write_json(options.json, "growth", {"rows": rows, "loaded_mb": loaded})


if __name__ == "__main__":
    main()
