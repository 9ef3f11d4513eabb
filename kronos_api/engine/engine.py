"""The engine: advances many forecasts together, one decode step at a time.

A forecast is encoded and its prompt prefilled in chunks, decoded one candle a step, then its
tokens become candles again. Decode steps of all forecasts share their products; everything else
is done for one forecast at a time, a chunk between two decode steps, so that a long prompt does not
hold up the others. The engine knows nothing of queues, deadlines or threads: whoever drives it
calls `step` and stops calling when a forecast is no longer wanted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Several
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kronos_api.checkpoints.info import ModelInfo
from kronos_api.engine.kv_cache import Memory, bytes_needed
from kronos_api.engine.model_runner import Network
from kronos_api.engine.pace import Pace, Phase, Work
from kronos_api.engine.request import ForecastRequest
from kronos_api.engine.sampling import SamplingTensors, sample, uniforms
from kronos_api.engine.sequence import Sequence
from kronos_api.engine.tokenizer_runner import Codec
from kronos_api.engine.window import Segment, WindowPolicy, plan_candles, plan_decoding
from kronos_api.timeseries.features import Floats, normalise

CHUNK = 256
"""Rows of a prompt that are encoded between two decode steps.

The grid of chunks depends on the request alone: where it is cut decides rounding.
"""


class NotFinite(ArithmeticError):
    """The network's output is not finite."""


class Engine:
    """One checkpoint that decodes forecasts."""

    def __init__(
        self, network: Network, codec: Codec, info: ModelInfo, policy: WindowPolicy, like: Tensor
    ) -> None:
        """Join a predictor and a tokenizer; `like` has the device and dtype they compute in."""
        self.info = info
        self.policy = policy
        self.network = network
        self.pace = Pace()
        self._turns = 0
        self._codec = codec
        self._like = like

    def memory_bytes(self, request: ForecastRequest) -> int:
        """Bytes of keys and values that decoding `request` will hold at most."""
        first, *rest = self._segments(request)
        layers, width = len(self.network.stack) + 1, self.network.width
        samples = request.sample_count
        positions = first.prompt + samples * first.steps
        if rest:
            positions = max(positions, samples * max(part.prompt + part.steps for part in rest))
        return bytes_needed(layers, positions, width, self._like.dtype)

    def work(self, request: ForecastRequest) -> Work:
        """All that is to do for `request`."""
        first, *rest = self._segments(request)
        shared, *own = self._windows(request)
        samples = request.sample_count
        return Work(
            rows=samples,
            steps=request.horizon,
            tokenize=_count(request.history, CHUNK),
            prefill=_count(first.prompt, CHUNK)
            + samples * sum(_count(segment.prompt, CHUNK) for segment in rest),
            detokenize=_count(samples, _group(shared.steps)) + samples * len(own),
        )

    @torch.inference_mode()
    def start(self, request: ForecastRequest) -> Sequence:
        """Normalise the candles of `request`; all that takes long is done by `step`."""
        device, params = self._like.device, request.params
        candles, scale = normalise(request.candles, request.clip)
        segments = self._segments(request)
        stamps = np.concatenate([request.history_time_features, request.future_time_features])
        samples, horizon = request.sample_count, request.horizon
        draws = uniforms(params.seed, samples, 2 * horizon)
        shape = (2, samples, request.history + horizon)
        tokens = torch.zeros(shape, dtype=torch.int64, device=device)
        sequence = Sequence(
            request=request,
            scale=scale,
            params=SamplingTensors.of(params).to(device),
            segments=segments,
            uniforms=torch.from_numpy(draws).view(samples, horizon, 2).to(device),
            s1=tokens[0],
            s2=tokens[1],
            times=self.network.times(torch.from_numpy(stamps).to(device)),
            context_used=segments[0].prompt,
            end=request.history,
            left=self.work(request),
        )
        sequence.work = self._encode(sequence, candles)
        return sequence

    @torch.inference_mode()
    def step(self, sequences: Several[Sequence]) -> None:
        """Advance: one chunk of one that has work, in turns, and one candle of all others.

        Turns keep a large forecast, which may have thousands of chunks, from holding up small
        ones. A sequence that fails is marked and leaves the others alone; when a shared decode step
        fails, all that took part fail.
        """
        working = [s for s in sequences if s.work is not None and not s.ended]
        decoding = [s for s in sequences if s.work is None and not s.ended]
        if working:
            self._work(min(working, key=lambda s: s.turn))
        if decoding:
            started = self.pace.clock()
            try:
                self._decode(decoding)
                rows = sum(s.request.sample_count for s in decoding)
                self.pace.note_step(rows, self.pace.clock() - started)
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

    def _segments(self, request: ForecastRequest) -> list[Segment]:
        return plan_decoding(request.history, request.horizon, self.info.max_context, self.policy)

    def _windows(self, request: ForecastRequest) -> list[Segment]:
        return plan_candles(request.history, request.horizon, self.info.max_context, self.policy)

    def _work(self, sequence: Sequence) -> None:
        """Run one chunk of `sequence`."""
        assert sequence.work is not None
        self._turns += 1
        sequence.turn = self._turns
        started = self.pace.clock()
        try:
            phase = next(sequence.work, None)
        except Exception as failure:
            sequence.fail(failure)
            return
        if phase is None:
            sequence.work = None
        else:
            self.pace.note_chunk(phase, self.pace.clock() - started)
            sequence.left.done(phase)

    def _encode(self, sequence: Sequence, candles: Floats) -> Iterator[Phase]:
        """Tokenize the whole history, given normalised, then encode the first prompt."""
        values = torch.from_numpy(candles).to(self._like.device)
        memory = self._codec.encoder_memory(len(values))
        for start, end in _chunks(len(values)):
            s1, s2 = self._codec.encode(values[start:end], memory)
            sequence.s1[:, start:end] = s1
            sequence.s2[:, start:end] = s2
            yield "tokenize"
        yield from self._prompt(sequence)

    def _prompt(self, sequence: Sequence) -> Iterator[Phase]:
        """Encode the prompt of the next segment; a prompt of known candles serves all paths."""
        segment, paths = sequence.segments.pop(0), sequence.request.sample_count
        known = sequence.end == sequence.request.history
        alone = known and paths > 1
        room = segment.prompt + (0 if alone else segment.steps - 1)
        memory = self.network.memory(1 if known else paths, room)
        hidden = []
        for path in range(1 if known else paths):
            lane = memory.path(path)
            for start, end in _chunks(segment.prompt):
                first = sequence.end - segment.prompt
                last = self._extend(sequence, path, first + start, first + end, lane)
                yield "prefill"
            hidden.append(last)
        memory.length = segment.prompt
        sequence.memory = memory.fork(paths, segment.steps - 1) if alone else memory
        sequence.hidden = torch.cat(hidden).expand(paths, -1)
        sequence.steps_left = segment.steps

    def _extend(self, sequence: Sequence, path: int, start: int, end: int, lane: Memory) -> Tensor:
        """Encode candles `start` … `end` - 1 of one path; return the last hidden state [1, C]."""
        tokens = (sequence.s1[path, start:end], sequence.s2[path, start:end])
        x = self.network.embed(*tokens, sequence.times[start:end])
        return self.network.extend(x.unsqueeze(0), lane)[:, -1]

    def _decode(self, sequences: list[Sequence]) -> None:
        """Decode one candle of every path of `sequences`."""
        stepping = [s for s in sequences if s.hidden is None]
        if stepping:
            x = torch.cat([self._newest(s) for s in stepping])
            counts = [s.request.sample_count for s in stepping]
            rows = self.network.step(x, [s.memory for s in stepping if s.memory is not None])
            for sequence, hidden in zip(stepping, rows.split(counts), strict=True):
                sequence.hidden = hidden
        self._sample(sequences)

    def _newest(self, sequence: Sequence) -> Tensor:
        """Embed the candle decoded last, of every path: [paths, C]."""
        at = sequence.end - 1
        return self.network.embed(
            sequence.s1[:, at], sequence.s2[:, at], sequence.times[at].unsqueeze(0)
        )

    def _sample(self, sequences: list[Sequence]) -> None:
        """Sample s1, then s2 of one candle for every path of `sequences`."""
        hidden = torch.cat([s.hidden for s in sequences if s.hidden is not None])
        if not math.isfinite(hidden.sum().item()):
            sequences = [s for s in sequences if _is_finite(s)]
            if not sequences:
                return
            hidden = torch.cat([s.hidden for s in sequences if s.hidden is not None])
        memories = [s.memory for s in sequences if s.memory is not None]
        params = SamplingTensors.join([s.params for s in sequences])
        uniform = torch.cat([s.uniforms[:, s.decoded] for s in sequences])
        s1 = sample(self.network.s1_logits(hidden), params, uniform[:, 0])
        s2 = sample(self.network.s2_logits(hidden, s1, memories), params, uniform[:, 1])
        counts = [s.request.sample_count for s in sequences]
        for sequence, first, second in zip(
            sequences, s1.split(counts), s2.split(counts), strict=True
        ):
            self._append(sequence, first, second)

    def _append(self, sequence: Sequence, s1: Tensor, s2: Tensor) -> None:
        """Store one decoded candle a path and settle what comes next."""
        sequence.s1[:, sequence.end] = s1
        sequence.s2[:, sequence.end] = s2
        sequence.end += 1
        sequence.steps_left -= 1
        sequence.left.steps -= 1
        sequence.hidden = None
        if sequence.decoded == sequence.request.horizon:
            sequence.release()
            sequence.work = self._candles(sequence)
        elif sequence.steps_left == 0:
            sequence.release()
            sequence.work = self._prompt(sequence)

    def _candles(self, sequence: Sequence) -> Iterator[Phase]:
        """Turn the decoded tokens of every path into candles again."""
        request = sequence.request
        values = np.empty((request.sample_count, request.horizon, 6), dtype=np.float32)
        done = 0
        for window in self._windows(request):
            end = request.history + done
            tokens = slice(end - window.prompt, end + window.steps)
            s1, s2 = sequence.s1[:, tokens], sequence.s2[:, tokens]
            decode = self._after_prompt if done == 0 else self._from_prompt
            for start, part in decode(s1, s2, window.prompt):
                values[start : start + len(part), done : done + window.steps] = part
                yield "detokenize"
            done += window.steps
        if not np.isfinite(values).all():
            raise NotFinite("decoded candles are not finite")
        sequence.values = values

    def _after_prompt(
        self, s1: Tensor, s2: Tensor, prompt: int
    ) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Decode what follows a prompt that all paths share, a group of paths at a time."""
        paths, total = s1.shape
        memory = self._codec.decoder_memory(1, prompt)
        self._codec.decode(s1[:1, :prompt], s2[:1, :prompt], memory)
        group = _group(total - prompt)
        for start in range(0, paths, group):
            rows = slice(start, min(start + group, paths))
            fork = memory.fork(rows.stop - start, total - prompt)
            candles = self._codec.decode(s1[rows, prompt:], s2[rows, prompt:], fork)
            yield start, candles.cpu().numpy()

    def _from_prompt(
        self, s1: Tensor, s2: Tensor, prompt: int
    ) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Decode windows whose prompts differ from path to path."""
        paths, total = s1.shape
        for path in range(paths):
            memory = self._codec.decoder_memory(1, total)
            candles = self._codec.decode(s1[path : path + 1], s2[path : path + 1], memory)
            yield path, candles[:, prompt:].cpu().numpy()


def _is_finite(sequence: Sequence) -> bool:
    """Whether the network's output is; a sequence whose is not fails."""
    if sequence.hidden is not None and bool(sequence.hidden.isfinite().all()):
        return True
    sequence.fail(NotFinite("hidden states are not finite"))
    return False


def _group(steps: int) -> int:
    """Sample paths whose `steps` candles are detokenized in one chunk."""
    return max(1, 4 * CHUNK // steps)


def _count(rows: int, size: int) -> int:
    """Chunks of `size` rows."""
    return math.ceil(rows / size)


def _chunks(rows: int) -> Iterator[tuple[int, int]]:
    return pairwise([*range(0, rows, CHUNK), rows])
