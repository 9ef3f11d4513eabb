"""The published implementation as an oracle: checkpoints of the public shapes, and its forecasts.

The functions import it, so that collecting tests works without it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from kronos_api.checkpoints.info import Source
from kronos_api.engine.request import ForecastRequest
from kronos_api.engine.sampling import SamplingParams
from kronos_api.timeseries.features import candle_matrix, time_features

TOKENIZER = {
    "d_in": 6,
    "d_model": 256,
    "n_heads": 4,
    "ff_dim": 512,
    "n_enc_layers": 4,
    "n_dec_layers": 4,
    "ffn_dropout_p": 0.0,
    "attn_dropout_p": 0.0,
    "resid_dropout_p": 0.0,
    "s1_bits": 10,
    "s2_bits": 10,
    "beta": 0.05,
    "gamma0": 1.0,
    "gamma": 1.1,
    "zeta": 0.05,
    "group_size": 4,
}


@dataclass(frozen=True, slots=True)
class Shape:
    """Size of a predictor; `tiny` is ours, for tests that need no public shape."""

    n_layers: int
    d_model: int
    n_heads: int
    ff_dim: int
    context: int


SHAPES = {
    "tiny": Shape(2, 64, 4, 128, 64),
    "mini": Shape(4, 256, 4, 512, 2048),
    "small": Shape(8, 512, 8, 1024, 512),
    "base": Shape(12, 832, 16, 2048, 512),
}


@dataclass(frozen=True, slots=True)
class Oracle:
    """A checkpoint of random weights in the published implementation, and saved by it."""

    shape: Shape
    model: Any
    tokenizer: Any
    sources: tuple[Source, Source]

    def forecast(
        self, series: Series, horizon: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
        """Greedy forecast: values [horizon, 6] and its s1 and s2 tokens [horizon]."""
        import model

        decoded: list[Any] = []
        decode = self.tokenizer.decode

        def spy(tokens: Any, half: bool) -> Any:
            decoded.extend(tokens)
            return decode(tokens, half=half)

        predictor = model.KronosPredictor(
            self.model, self.tokenizer, device="cpu", max_context=self.shape.context
        )
        history = len(series.frame)
        self.tokenizer.decode = spy
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of deprecated calls that are not ours
            frame = predictor.predict(
                series.frame,
                series.timestamps[:history],
                series.timestamps[history : history + horizon].reset_index(drop=True),
                horizon,
                T=1.0,
                top_k=1,
                top_p=1.0,
                sample_count=1,
                verbose=False,
            )
        self.tokenizer.decode = decode
        s1, s2 = (tokens[0, -horizon:].numpy() for tokens in decoded)
        return frame.to_numpy(dtype=np.float32), s1, s2


MakeOracle = Callable[[str], Oracle]


@dataclass(frozen=True, slots=True)
class Series:
    """Candles, and timestamps of them and of a future."""

    frame: pd.DataFrame
    timestamps: pd.Series

    def request(self, horizon: int, **params: Any) -> ForecastRequest:
        """A request for it, greedy unless `params` (of `SamplingParams`) say otherwise."""
        history = len(self.frame)
        candles = candle_matrix({str(name): self.frame[name].to_list() for name in self.frame})
        times = time_features(list(self.timestamps[: history + horizon]))
        sampling = SamplingParams(**({"top_k": 1} | params))
        return ForecastRequest(candles, times[:history], times[history:], sampling)


def walk(history: int, seed: int = 0, spare: int = 512) -> Series:
    """A random walk of `history` candles, and `spare` timestamps after it."""
    numbers = np.random.default_rng(seed)
    close = 100 * np.exp(numbers.normal(0, 0.01, history).cumsum())
    opening = np.concatenate([close[:1], close[:-1]])
    frame = pd.DataFrame(
        {
            "open": opening,
            "high": np.maximum(opening, close) * 1.002,
            "low": np.minimum(opening, close) * 0.998,
            "close": close,
            "volume": numbers.gamma(2, 100, history),
        }
    )
    timestamps = pd.Series(pd.date_range("2024-01-05 10:00", periods=history + spare, freq="15min"))
    return Series(frame, timestamps)


def make_oracle(name: str, folder: Path, seed: int = 1) -> Oracle:
    """Make a checkpoint of shape `name` with random weights and save it below `folder`."""
    import model

    shape = SHAPES[name]
    torch.manual_seed(seed)
    predictor = model.Kronos(
        s1_bits=10,
        s2_bits=10,
        n_layers=shape.n_layers,
        d_model=shape.d_model,
        n_heads=shape.n_heads,
        ff_dim=shape.ff_dim,
        ffn_dropout_p=0.2,
        attn_dropout_p=0.0,
        resid_dropout_p=0.2,
        token_dropout_p=0.0,
        learn_te=True,
    ).eval()
    tokenizer = model.KronosTokenizer(**TOKENIZER).eval()
    predictor.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "tokenizer")
    sources = (
        Source("model", f"random/{name}", folder / "model"),
        Source("tokenizer", f"random/{name}", folder / "tokenizer"),
    )
    return Oracle(shape, predictor, tokenizer, sources)
