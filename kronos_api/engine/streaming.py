"""Candles of a forecast while it is decoded, for callers that read them one by one.

Detokenization after the last decode step gives the forecast itself. This decoder runs before it and
beside it: after a decode step, it decodes the tokens of the new candles alone, over KV caches of
its own. Its candles are those of the forecast up to rounding, in int8 up to a step of quantisation,
and the bits of no forecast change.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kronos_api.engine.chunks import MOST_TOKENS, NotFinite
from kronos_api.engine.kv_cache import KVCache
from kronos_api.engine.request import ForecastRequest
from kronos_api.engine.sequence import Sequence
from kronos_api.engine.tokenizer_runner import TokenizerRunner
from kronos_api.engine.window import Segment
from kronos_api.timeseries.features import Floats


@dataclass(slots=True, eq=False)
class CandleDecoder:
    """Decodes the candles of one forecast in the windows in which it will be detokenized.

    windows: those that are not complete. done: candles decoded so far.
    """

    tokenizer: TokenizerRunner
    request: ForecastRequest
    windows: list[Segment]
    done: int = 0
    _cache: KVCache | None = None
    _filled: int = 0
    _window_end: int = 0

    @property
    def cache_bytes(self) -> int:
        """Bytes of keys and values that decoding holds at most."""
        first, *rest = self.windows
        paths = self.request.sample_count
        positions = first.prompt + paths * first.steps
        if rest:
            positions = max(positions, paths * max(one.prompt + one.steps for one in rest))
        return self.tokenizer.decoder_cache_bytes(positions)

    def backlog(self, sequence: Sequence) -> int:
        """Candles of `sequence` whose tokens are sampled and that are not decoded here."""
        return sequence.decoded - self.done

    @torch.inference_mode()
    def decode(self, sequence: Sequence) -> Floats:
        """The next candles, normalised, float32 [sample_count, n, 6].

        n is 0 while a prompt is prefilled, one path a call, and bounded by `MOST_TOKENS`. Raises
        NotFinite.
        """
        paths = self.request.sample_count
        if self._filled < paths:
            self._prefill(sequence)
        steps = min(self.backlog(sequence), max(1, MOST_TOKENS // paths))
        steps = min(steps, self._window_end - self.done) if self._filled == paths else 0
        if not steps:
            return np.empty((paths, 0, 6), np.float32)
        first = self.request.history + self.done
        s1, s2 = _tokens(sequence, slice(0, paths), slice(first, first + steps))
        assert self._cache is not None
        candles = self.tokenizer.decode(s1, s2, self._cache).cpu().numpy()
        if not np.isfinite(candles).all():
            raise NotFinite("The decoded candles are not finite.")
        self.done += steps
        if self.done == self._window_end:
            self.windows.pop(0)
            self._cache, self._filled = None, 0
        return candles

    def _prefill(self, sequence: Sequence) -> None:
        """Prefill the prompt of the next path, or that of all paths where it is the history."""
        window, paths = self.windows[0], self.request.sample_count
        end = self.request.history + self.done
        prompt = slice(end - window.prompt, end)
        self._window_end = self.done + window.steps
        if self.done == 0:
            shared = self.tokenizer.decoder_cache(1, window.prompt)
            self.tokenizer.fill_decoder(*_tokens(sequence, slice(0, 1), prompt), shared)
            self._cache, self._filled = shared.fork(paths, window.steps), paths
            return
        if self._cache is None:
            self._cache = self.tokenizer.decoder_cache(paths, window.prompt + window.steps)
        path = slice(self._filled, self._filled + 1)
        tokens = _tokens(sequence, path, prompt)
        self.tokenizer.fill_decoder(*tokens, self._cache.path_cache(self._filled))
        self._filled += 1
        self._cache.length = window.prompt


def _tokens(sequence: Sequence, paths: slice, columns: slice) -> tuple[Tensor, Tensor]:
    return sequence.s1[paths, columns], sequence.s2[paths, columns]
