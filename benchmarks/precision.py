"""Error and speed of bfloat16 and int8 against float32 on the same weights.

Logit error: both engines get the tokens that float32 decodes, and the difference of their s1
logits is given in standard deviations of the float32 logits. Candle error: the difference of the
candles that both tokenizers decode from these tokens, in deviations of the history, beside the
error of the tokenizer itself: of the history's candles, encoded and decoded in float32. Forecast
error: the mean over many sample paths of the same seed, as the difference of closes in deviations
of the history, beside the deviation of the paths themselves.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.floor import best_of
from benchmarks.report import parser, print_row, write_json
from kronos_api.checkpoints.hub import locate
from kronos_api.checkpoints.info import Source
from kronos_api.engine.build import build_engine
from kronos_api.engine.engine import Engine
from kronos_api.engine.request import ForecastRequest
from kronos_api.timeseries.features import normalise
from tests.oracle import Series, make_oracle, walk

HISTORY, HORIZON, SAMPLE_COUNT = 400, 24, 64
WIDTHS = (36, 16, 16, 16, 16)


def teacher_forced(engine: Engine, series: Series, s1: Tensor, s2: Tensor) -> Tensor:
    """Logits of the next s1 after every one of the tokens [T]: float32 [T, V1]."""
    model = engine.model
    request = series.request(HORIZON)
    times = np.concatenate([request.history_time_features, request.future_time_features])
    with torch.inference_mode():
        x = model.embed(s1, s2, model.embed_times(torch.from_numpy(times)))
        cache = model.allocate_cache(1, len(s1))
        return model.s1_logits(model.prefill(x.unsqueeze(0), cache).squeeze(0))


def decoded(engine: Engine, s1: Tensor, s2: Tensor) -> Tensor:
    """Candles of the tokens [T]: normalised, float32 [T, 6]."""
    tokenizer = engine.tokenizer
    with torch.inference_mode():
        cache = tokenizer.decoder_cache(1, len(s1))
        return tokenizer.decode(s1.unsqueeze(0), s2.unsqueeze(0), cache).squeeze(0)


def closes(engine: Engine, request: ForecastRequest) -> NDArray[np.float32]:
    """Normalised closes of every sample path: [sample_count, horizon]."""
    values = engine.run(request).values
    assert values is not None
    return values[..., 3]


def seconds(engine: Engine, request: ForecastRequest) -> float:
    """Best time of three."""
    return best_of(3, lambda: engine.run(request))


def compare(sources: tuple[Source, Source], dtype: str, threads: int) -> dict[str, float]:
    """Errors of `dtype` against float32, and how many times faster it is."""
    wide = build_engine(*sources, dtype="float32", torch_threads=threads)
    narrow = build_engine(*sources, dtype=dtype, torch_threads=threads)
    if narrow.info.dtype_warning:
        raise SystemExit(narrow.info.dtype_warning)
    series = walk(HISTORY)
    tokens = wide.run(series.request(HORIZON))
    exact = teacher_forced(wide, series, tokens.s1[0], tokens.s2[0])
    rough = teacher_forced(narrow, series, tokens.s1[0], tokens.s2[0])
    error = (rough - exact).abs() / exact.std()
    shares = torch.log_softmax(exact, dim=-1)
    divergence = (shares.exp() * (shares - torch.log_softmax(rough, dim=-1))).sum(-1)
    candles = [decoded(engine, tokens.s1[0], tokens.s2[0]) for engine in (wide, narrow)]
    candle_error = (candles[1] - candles[0]).abs()
    request = series.request(HORIZON)
    history = torch.from_numpy(normalise(request.candles, request.clip)[0])
    one = series.request(HORIZON, top_k=0, top_p=0.9)
    many = series.request(HORIZON, top_k=0, top_p=0.9, sample_count=SAMPLE_COUNT)
    paths = closes(wide, many)
    difference = closes(narrow, many).mean(axis=0) - paths.mean(axis=0)
    return {
        "logit error, mean": float(error.mean()),
        "logit error, largest": float(error.max()),
        "KL divergence, mean": float(divergence.mean()),
        "same most likely token": float((exact.argmax(-1) == rough.argmax(-1)).float().mean()),
        "candle error, mean": float(candle_error.mean()),
        "candle error, largest": float(candle_error.max()),
        "error of the tokenizer, mean": float((candles[0][:HISTORY] - history).abs().mean()),
        f"error of the mean of {SAMPLE_COUNT} paths": float(np.abs(difference).mean()),
        "deviation of the paths": float(paths.std(axis=0).mean()),
        "times faster, 1 path": seconds(wide, one) / seconds(narrow, one),
        f"times faster, {SAMPLE_COUNT} paths": seconds(wide, many) / seconds(narrow, many),
    }


def main() -> None:
    """Print one table: random weights of a public shape, and the bundled checkpoint."""
    options = parser("precision", __doc__).parse_args()
    torch.set_num_threads(options.threads)
    bundled = (locate(None, "model", timeout=1), locate(None, "tokenizer", timeout=1))
    with tempfile.TemporaryDirectory() as folder:
        random = make_oracle(options.shape, Path(folder)).sources
        columns = {
            f"{name}, {dtype}": compare(sources, dtype, options.threads)
            for dtype in ("bfloat16", "int8")
            for name, sources in ((options.shape, random), ("demo", bundled))
        }
    print_row(["", *columns], WIDTHS)
    for name in next(iter(columns.values())):
        print_row([name, *(column[name] for column in columns.values())], WIDTHS)
    write_json(options.json, "precision", columns)


if __name__ == "__main__":
    main()
