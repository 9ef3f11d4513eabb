"""Tokenize, prefill and detokenize: phases that run for one forecast at a time, in chunks.

The engine runs one chunk between two decode steps, so that a long prompt does not hold up the
others. The grid of chunks depends on the request alone: where it is cut decides rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence as Several
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from kronos_api.engine.kv_cache import KVCache
from kronos_api.engine.model_runner import ModelRunner
from kronos_api.engine.pace import Phase, PhaseCounts
from kronos_api.engine.request import ForecastRequest
from kronos_api.engine.sequence import Sequence
from kronos_api.engine.tokenizer_runner import TokenizerRunner
from kronos_api.engine.window import Segment

CHUNK = 512
"""Candles of a history or prompt in one chunk."""
MOST_TOKENS = 1024
"""Tokens, over all paths, that one chunk decodes to candles at most, unless one path has more."""


class NotFinite(ArithmeticError):
    """The model's output is not finite."""


@dataclass(slots=True, eq=False)
class Tokenization:
    """Encodes the whole history, normalised, float32 [history, 6], to tokens of all paths."""

    phase: ClassVar[Phase] = "tokenize"

    tokenizer: TokenizerRunner
    candles: Tensor
    _cache: KVCache | None = None

    def run(self, sequence: Sequence) -> bool:
        """Encode the next chunk of the history."""
        if self._cache is None:  # by the first chunk: many forecasts may be admitted at once
            self._cache = self.tokenizer.encoder_cache(len(self.candles))
        rows = _next_chunk(self._cache.length, len(self.candles))
        s1, s2 = self.tokenizer.encode(self.candles[rows], self._cache)
        sequence.s1[:, rows] = s1
        sequence.s2[:, rows] = s2
        return self._cache.length == len(self.candles)


@dataclass(slots=True, eq=False)
class Prefill:
    """Fills the KV cache with the prompt of a segment, one path after the other.

    A prompt of the history is the same for all paths and is prefilled once (`shared`); decoded
    candles differ from path to path.

    hidden: last hidden state, [1, C], of each prompt that is complete.
    """

    phase: ClassVar[Phase] = "prefill"

    model: ModelRunner
    segment: Segment
    sample_count: int
    shared: bool
    cache: KVCache | None = None
    hidden: list[Tensor] = field(init=False, default_factory=list)
    _path: KVCache = field(init=False)

    def run(self, sequence: Sequence) -> bool:
        """Prefill the next chunk of the prompt of one path."""
        cache = self.cache
        if cache is None:  # in the first chunk, when the segment before has freed its own
            cache = self.cache = self._allocate()
            self._path = cache.path_cache(0)
        path, prompt = len(self.hidden), self.segment.prompt
        chunk = _next_chunk(self._path.length, prompt)
        first = sequence.num_tokens - prompt
        rows = slice(first + chunk.start, first + chunk.stop)
        x = self.model.embed(sequence.s1[path, rows], sequence.s2[path, rows], sequence.times[rows])
        hidden = self.model.prefill(x.unsqueeze(0), self._path)[:, -1]
        if chunk.stop < prompt:
            return False
        self.hidden.append(hidden)
        if len(self.hidden) < cache.batch_size:
            self._path = cache.path_cache(len(self.hidden))
            return False
        return True

    def complete(self) -> tuple[KVCache, Tensor]:
        """The cache for decoding, and the last hidden state of every path, [sample_count, C]."""
        assert self.cache is not None
        self.cache.length = self.segment.prompt
        hidden = torch.cat(self.hidden).expand(self.sample_count, -1).contiguous()
        if self._forks:
            return self.cache.fork(self.sample_count, self.segment.steps - 1), hidden
        return self.cache, hidden

    def _allocate(self) -> KVCache:
        batch_size = 1 if self.shared else self.sample_count
        # Paths that share their prompt get capacity of their own when the prompt is complete.
        own = 0 if self._forks else self.segment.steps - 1
        return self.model.allocate_cache(batch_size, self.segment.prompt + own)

    @property
    def _forks(self) -> bool:
        return self.shared and self.sample_count > 1


@dataclass(slots=True, eq=False)
class Detokenization:
    """Decodes the tokens of every path to normalised candles, a window of them after the other.

    Paths that follow the same history share its prompt and are decoded in groups; in later windows
    each path has a prompt of its own.

    values: float32 [sample_count, horizon, 6]. done: candles of it that are complete. path: the
    next path of the current window.
    """

    phase: ClassVar[Phase] = "detokenize"

    tokenizer: TokenizerRunner
    windows: list[Segment]
    request: ForecastRequest
    values: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = field(init=False)
    done: int = 0
    path: int = 0
    _prompt: KVCache | None = None

    def __post_init__(self) -> None:
        shape = (self.request.sample_count, self.request.horizon, 6)
        self.values = np.empty(shape, dtype=np.float32)

    def run(self, sequence: Sequence) -> bool:
        """Decode the next group of paths; raises NotFinite after the last one."""
        window, samples = self.windows[0], self.request.sample_count
        shared = self.done == 0
        paths = slice(self.path, min(self.path + _group(window, shared), samples))
        end = self.request.history + self.done
        tokens = slice(end - window.prompt, end + window.steps)
        s1, s2 = sequence.s1[paths, tokens], sequence.s2[paths, tokens]
        decode = self._after_shared_prompt if shared else self._with_prompt
        candles = decode(s1, s2, window.prompt)
        self.values[paths, self.done : self.done + window.steps] = candles.cpu().numpy()
        self.path = paths.stop
        if self.path == samples:
            self.windows.pop(0)
            self.path, self.done = 0, self.done + window.steps
        if self.windows:
            return False
        if not np.isfinite(self.values).all():
            raise NotFinite("The decoded candles are not finite.")
        return True

    def _after_shared_prompt(self, s1: Tensor, s2: Tensor, prompt: int) -> Tensor:
        if self._prompt is None:
            self._prompt = self.tokenizer.decoder_cache(1, prompt)
            self.tokenizer.fill_decoder(s1[:1, :prompt], s2[:1, :prompt], self._prompt)
        paths, total = s1.shape
        fork = self._prompt.fork(paths, total - prompt)
        return self.tokenizer.decode(s1[:, prompt:], s2[:, prompt:], fork)

    def _with_prompt(self, s1: Tensor, s2: Tensor, prompt: int) -> Tensor:
        cache = self.tokenizer.decoder_cache(*s1.shape)
        self.tokenizer.fill_decoder(s1[:, :prompt], s2[:, :prompt], cache)
        return self.tokenizer.decode(s1[:, prompt:], s2[:, prompt:], cache)


def count_phases(
    request: ForecastRequest, segments: Several[Segment], windows: Several[Segment]
) -> PhaseCounts:
    """All chunks and decode steps of `request`, which is decoded in `segments` and `windows`."""
    samples = request.sample_count
    first, *rest = segments
    shared, *own = windows
    return PhaseCounts(
        rows=samples,
        steps=request.horizon,
        tokenize=_count(request.history),
        prefill=_count(first.prompt) + samples * sum(_count(one.prompt) for one in rest),
        detokenize=math.ceil(samples / _group(shared, shared=True)) + samples * len(own),
    )


def _next_chunk(start: int, rows: int) -> slice:
    return slice(start, min(start + CHUNK, rows))


def _count(rows: int) -> int:
    return math.ceil(rows / CHUNK)


def _group(window: Segment, shared: bool) -> int:
    """Sample paths that are detokenized in one chunk."""
    return max(1, MOST_TOKENS // window.steps) if shared else 1
