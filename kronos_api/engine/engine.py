"""The engine: advances many forecasts together, one decode step at a time.

Each call of `Engine.step` runs chunks (of tokenize, prefill or detokenize), each of one forecast,
and one decode step of all forecasts that decode, whose rows share their GEMMs. The engine has no
queue, deadline or thread: its caller passes the sequences to advance, without those to cancel.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from collections.abc import Sequence as Several
from operator import attrgetter
from typing import Final

import numpy as np
import torch
from torch import Tensor

from kronos_api.checkpoints.info import ModelInfo
from kronos_api.engine.chunks import Detokenization, NotFinite, Prefill, Tokenization, count_phases
from kronos_api.engine.kv_cache import KVCache
from kronos_api.engine.model_runner import ModelRunner
from kronos_api.engine.pace import Pace, PhaseCounts
from kronos_api.engine.request import ForecastRequest
from kronos_api.engine.sampling import SamplingTensors, sample, uniforms
from kronos_api.engine.sequence import Chunks, Sequence, SequenceStatus
from kronos_api.engine.streaming import CandleDecoder
from kronos_api.engine.tokenizer_runner import TokenizerRunner
from kronos_api.engine.window import Segment, WindowPolicy, plan_candles, plan_decoding
from kronos_api.timeseries.features import normalise

IN_CHUNKS: Final = (SequenceStatus.TOKENIZE, SequenceStatus.PREFILL, SequenceStatus.DETOKENIZE)
"""Statuses in which a sequence runs by itself, a chunk at a time."""
BURST_SECONDS: Final = 0.5
"""Time for short phases before a decode step; running forecasts wait for it, and a chunk more."""


class Engine:
    """One checkpoint that decodes forecasts."""

    def __init__(
        self, model: ModelRunner, tokenizer: TokenizerRunner, info: ModelInfo, policy: WindowPolicy
    ) -> None:
        self.info = info
        self.policy = policy
        self.model = model
        self.tokenizer = tokenizer
        self.pace = Pace()
        self._turns = 0

    def kv_cache_bytes(self, request: ForecastRequest) -> int:
        """Bytes of keys and values that decoding `request` holds at most.

        A float16 prompt that paths share is held twice while it is converted, which is not counted.
        """
        first, *rest = self._segments(request)
        samples = request.sample_count
        if samples == 1:
            held = self.model.cache_bytes(first.prompt + first.steps)
        else:
            held = self.model.cache_bytes(samples * first.steps, prefix=first.prompt)
        if rest:
            positions = samples * max(part.prompt + part.steps for part in rest)
            held = max(held, self.model.cache_bytes(positions))
        return held

    def phase_counts(self, request: ForecastRequest) -> PhaseCounts:
        """All chunks and decode steps of `request`."""
        return count_phases(request, self._segments(request), self._windows(request))

    def candle_decoder(self, request: ForecastRequest) -> CandleDecoder:
        """A decoder of the candles of `request` for use after each step."""
        return CandleDecoder(self.tokenizer, request, self._windows(request))

    @torch.inference_mode()
    def start(self, request: ForecastRequest) -> Sequence:
        """Normalise the candles of `request`; `step` does everything that takes long."""
        device, samples, horizon = self.model.device, request.sample_count, request.horizon
        candles, scale = normalise(request.candles, request.clip)
        segments = self._segments(request)
        features = np.concatenate([request.history_time_features, request.future_time_features])
        draws = uniforms(request.params.seed, samples, 2 * horizon)
        shape = (2, samples, request.history + horizon)
        s1, s2 = torch.zeros(shape, dtype=torch.int64, device=device)
        return Sequence(
            request=request,
            scale=scale,
            sampling=SamplingTensors.of(request.params).to(device),
            segments=segments,
            uniforms=torch.from_numpy(draws).view(samples, horizon, 2).to(device),
            s1=s1,
            s2=s2,
            times=self.model.embed_times(torch.from_numpy(features).to(device)),
            context_used=segments[0].prompt,
            num_tokens=request.history,
            remaining=self.phase_counts(request),
            chunks=Tokenization(self.tokenizer, torch.from_numpy(candles).to(device)),
        )

    @torch.inference_mode()
    def step(self, sequences: Several[Sequence]) -> None:
        """Run chunks for `BURST_SECONDS`, then one decode step of all that decode.

        The first chunk is that of the sequence whose turn it is, so none starves. The others belong
        to short phases: new prompts, which then share their decode steps, and last chunks. Phases
        of many chunks do not hold up the decode steps.

        A sequence that fails does not affect the others; if a shared decode step fails, all that
        took part in it fail.
        """
        pending = [s for s in sequences if s.status in IN_CHUNKS]
        if pending:
            started = self.pace.clock()
            self._advance(min(pending, key=attrgetter("turn")))
            while self.pace.clock() - started < BURST_SECONDS:
                short = [s for s in pending if s.in_short_phase]
                if not short:
                    break
                self._advance(min(short, key=_last_chunks_first))
        decoding = [s for s in sequences if s.status is SequenceStatus.DECODE]
        if decoding:
            try:
                self._decode(decoding)
            except Exception as failure:
                for sequence in decoding:
                    sequence.fail(failure)

    def run(self, request: ForecastRequest, check: Callable[[], None] = lambda: None) -> Sequence:
        """Run one forecast to its end; `check` runs before each step and may raise to stop it."""
        sequence = self.start(request)
        while not sequence.ended:
            check()
            self.step([sequence])
        if sequence.failure is not None:
            raise sequence.failure
        return sequence

    def free_unused_memory(self) -> None:
        """Free the memory of caches that have ended, which is kept for those of the next ones."""
        self.model.memory.clear()

    def _advance(self, sequence: Sequence) -> None:
        """Run the next chunk of `sequence`."""
        chunks = sequence.chunks
        assert chunks is not None
        self._turns += 1
        sequence.turn = self._turns
        started = self.pace.clock()
        try:
            last = chunks.run(sequence)
            self.pace.note_chunk(chunks.phase, self.pace.clock() - started)
            sequence.remaining.count_down(chunks.phase)
            if last:
                self._complete(sequence, chunks)
        except Exception as failure:
            sequence.fail(failure)

    def _complete(self, sequence: Sequence, chunks: Chunks) -> None:
        """Leave the phase whose last chunk has run; prefill gives the first candle at once."""
        match chunks:
            case Tokenization():
                self._begin_prefill(sequence)
            case Prefill():
                cache, hidden = chunks.complete()
                sequence.begin_decoding(cache, chunks.segment.steps)
                self._decode([sequence], hidden)
            case Detokenization():
                sequence.finish(chunks.values)

    def _begin_prefill(self, sequence: Sequence) -> None:
        """Enter the next segment. The prompt of the first is history, which all paths share."""
        segment, shared = sequence.segments.pop(0), sequence.decoded == 0
        prefill = Prefill(self.model, segment, sequence.sample_count, shared)
        sequence.begin(SequenceStatus.PREFILL, prefill)

    def _decode(self, sequences: list[Sequence], prefilled: Tensor | None = None) -> None:
        """Decode one candle of every path of `sequences`.

        prefilled: their last hidden states, [R, C], if prefill has just computed them.
        """
        started = self.pace.clock()
        rows = sum(s.sample_count for s in sequences)
        hidden = self._forward(sequences) if prefilled is None else prefilled
        sequences, hidden = _fail_not_finite(sequences, hidden)
        if sequences:
            self._sample(sequences, hidden)
        if prefilled is None:  # sampling alone is no measure of a step
            self.pace.note_step(rows, self.pace.clock() - started)

    def _forward(self, sequences: list[Sequence]) -> Tensor:
        """Hidden states [R, C] after the candle decoded last, of every path."""
        x = torch.cat([self._embed_newest(s) for s in sequences])
        return self.model.decode(x, _caches(sequences))

    def _embed_newest(self, sequence: Sequence) -> Tensor:
        at = sequence.num_tokens - 1
        return self.model.embed(sequence.s1[:, at], sequence.s2[:, at], sequence.times[at])

    def _sample(self, sequences: list[Sequence], hidden: Tensor) -> None:
        """Sample s1, then s2, from hidden states [R, C]; append them and enter the next phase."""
        sampling = SamplingTensors.join([s.sampling for s in sequences])
        uniform = torch.cat([s.uniforms[:, s.decoded] for s in sequences])
        model, draw, caches = self.model, self.model.kernels.draw, _caches(sequences)
        s1 = sample(model.s1_logits(hidden), sampling, uniform[:, 0], draw)
        s2 = sample(model.s2_logits(hidden, s1, caches), sampling, uniform[:, 1], draw)
        counts = [s.sample_count for s in sequences]
        for sequence, *tokens in zip(sequences, s1.split(counts), s2.split(counts), strict=True):
            sequence.append(*tokens)
            if sequence.decoded == sequence.request.horizon:
                request = sequence.request
                detokenization = Detokenization(self.tokenizer, self._windows(request), request)
                sequence.begin(SequenceStatus.DETOKENIZE, detokenization)
            elif sequence.steps_left == 0:
                self._begin_prefill(sequence)

    def _segments(self, request: ForecastRequest) -> list[Segment]:
        return plan_decoding(request.history, request.horizon, self.info.max_context, self.policy)

    def _windows(self, request: ForecastRequest) -> list[Segment]:
        return plan_candles(request.history, request.horizon, self.info.max_context, self.policy)


def _last_chunks_first(sequence: Sequence) -> tuple[bool, int]:
    return sequence.status is not SequenceStatus.DETOKENIZE, sequence.turn


def _caches(sequences: Several[Sequence]) -> list[KVCache]:
    return [s.cache for s in sequences if s.cache is not None]


def _fail_not_finite(sequences: list[Sequence], hidden: Tensor) -> tuple[list[Sequence], Tensor]:
    """Fail the sequences whose rows of `hidden` [R, C] are not finite; returns the others."""
    if math.isfinite(hidden.sum().item()):
        return sequences, hidden
    finite, kept = [], []
    for sequence, rows in zip(
        sequences, hidden.split([s.sample_count for s in sequences]), strict=True
    ):
        if rows.isfinite().all():
            finite.append(sequence)
            kept.append(rows)
        else:
            sequence.fail(NotFinite("The hidden states are not finite."))
    return finite, torch.cat(kept) if kept else hidden[:0]
