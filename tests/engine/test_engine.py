"""The engine against uncached decoding: batch-invariant, thread-safe, fair, and when it fails."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from kronos_api.checkpoints.loader import load_model, load_tokenizer
from kronos_api.engine.build import build_engine
from kronos_api.engine.chunks import NotFinite, Prefill
from kronos_api.engine.engine import BURST_SECONDS, Engine
from kronos_api.engine.kv_cache import KVCache
from kronos_api.engine.pace import Phase, PhaseCounts
from kronos_api.engine.request import ForecastRequest
from kronos_api.engine.sequence import Sequence, SequenceStatus
from kronos_api.engine.window import WindowPolicy
from kronos_api.timeseries.features import normalise
from tests.engine.conftest import MakeEngine, mixed_requests
from tests.oracle import MakeOracle, walk


def naive_greedy(
    oracles: MakeOracle, request: ForecastRequest
) -> tuple[list[tuple[int, int]], Tensor]:
    """Greedy decoding by the plain modules, without a KV cache."""
    normalised, _ = normalise(request.candles, request.clip)
    oracle = oracles("tiny")
    model, _ = load_model(oracle.sources[0])
    tokenizer, _ = load_tokenizer(oracle.sources[1])
    features = torch.from_numpy(
        np.concatenate([request.history_time_features, request.future_time_features])
    )[None]
    with torch.inference_mode():
        s1, s2 = tokenizer.tokens(tokenizer.latents(torch.from_numpy(normalised)[None]))
        for _ in range(request.horizon):
            hidden = model.hidden(s1, s2, features[:, : s1.shape[1]])
            first = model.s1_logits(hidden[:, -1:]).argmax(-1)
            shifted = torch.cat([s1[:, 1:], first], dim=1)
            second = model.s2_logits(hidden, shifted)[:, -1:].argmax(-1)
            s1, s2 = torch.cat([s1, first], dim=1), torch.cat([s2, second], dim=1)
        values = tokenizer.reconstruct(tokenizer.codes(s1, s2))[0, request.history :]
    pairs = zip(s1[0, request.history :].tolist(), s2[0, request.history :].tolist(), strict=True)
    return list(pairs), values


def tokens(run: Sequence, path: int = 0) -> list[tuple[int, int]]:
    history = run.request.history
    s1, s2 = run.s1[path, history:].tolist(), run.s2[path, history:].tolist()
    return list(zip(s1, s2, strict=True))


def values_of(run: Sequence) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    assert run.values is not None
    return run.values


@pytest.mark.parametrize(("history", "horizon"), [(1, 10), (30, 30)])
def test_cached_equals_uncached(
    oracles: MakeOracle, tiny: Engine, history: int, horizon: int
) -> None:
    request = walk(history).request(horizon)
    run = tiny.run(request)
    pairs, values = naive_greedy(oracles, request)
    assert tokens(run) == pairs
    np.testing.assert_allclose(values_of(run)[0], values.numpy(), rtol=1e-4, atol=1e-5)


def test_chunked_prefill_equals_whole(
    oracles: MakeOracle, tiny: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = walk(40).request(10)
    monkeypatch.setattr("kronos_api.engine.chunks.CHUNK", 7)
    pairs, values = naive_greedy(oracles, request)
    run = tiny.run(request)
    assert tokens(run) == pairs
    np.testing.assert_allclose(values_of(run)[0], values.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sample_count", [1, 2])
def test_full_anchored_window_continues_from_its_last_half(
    oracles: MakeOracle, tiny: Engine, sample_count: int
) -> None:
    """Past the context of 64, decoding equals a fresh start from the last 32 candles."""
    request = walk(50).request(70, sample_count=sample_count)
    run = tiny.run(request)
    assert run.context_used == 32
    model, _ = load_model(oracles("tiny").sources[0])
    features = torch.from_numpy(
        np.concatenate([request.history_time_features, request.future_time_features])
    )[None]
    at = 50 + 32  # the first candle of the second segment
    with torch.inference_mode():
        window = slice(at - 32, at)
        hidden = model.hidden(run.s1[:1, window], run.s2[:1, window], features[:, window])
        assert int(model.s1_logits(hidden[:, -1]).argmax()) == int(run.s1[0, at])
    assert np.isfinite(values_of(run)).all()


def assert_same_bytes(run: Sequence, alone: Sequence) -> None:
    assert torch.equal(run.s1, alone.s1)
    assert torch.equal(run.s2, alone.s2)
    assert values_of(run).tobytes() == values_of(alone).tobytes()


def test_forecast_has_the_same_bytes_alone_and_with_batch_mates(tiny: Engine) -> None:
    """Sequences join and leave at different steps."""
    requests = mixed_requests()
    alone = [tiny.run(request) for request in requests]
    runs: list[Sequence] = []
    waiting = list(requests)
    step = 0
    while waiting or any(not run.ended for run in runs):
        if waiting and step % 3 == 0:
            runs.append(tiny.start(waiting.pop(0)))
        tiny.step([run for run in runs if not run.ended])
        step += 1
    for run, expected in zip(runs, alone, strict=True):
        assert_same_bytes(run, expected)


def test_eight_threads_give_the_same_bytes_as_one(tiny: Engine) -> None:
    requests = mixed_requests() * 2
    alone = [tiny.run(request) for request in requests]
    with ThreadPoolExecutor(8) as pool:
        for run, expected in zip(pool.map(tiny.run, requests), alone, strict=True):
            assert_same_bytes(run, expected)


def test_more_paths_keep_the_first_ones(tiny: Engine) -> None:
    """Path p draws from (seed, p), so asking for more paths changes no token of the first."""
    few = walk(30).request(12, top_k=0, sample_count=3, seed=9)
    many = walk(30).request(12, top_k=0, sample_count=6, seed=9)
    six, three = tiny.run(many), tiny.run(few)
    assert torch.equal(six.s1[:3], three.s1)
    assert torch.equal(six.s2[:3], three.s2)
    # Attention of more queries to the shared prompt may differ in the last bit.
    np.testing.assert_allclose(values_of(six)[:3], values_of(three), rtol=1e-4, atol=1e-6)


def test_check_stops_between_steps(tiny: Engine) -> None:
    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls == 10:
            raise TimeoutError

    request = walk(30).request(30)
    with pytest.raises(TimeoutError):
        tiny.run(request, check)
    assert calls == 10


def test_hidden_states_that_are_not_finite_fail_their_own_sequence(tiny: Engine) -> None:
    good = walk(20).request(8)
    bad = walk(20).request(8)
    runs = [tiny.start(bad), tiny.start(good)]
    runs[0].times = torch.full_like(runs[0].times, float("nan"))
    while not all(run.ended for run in runs):
        tiny.step([run for run in runs if not run.ended])
    assert isinstance(runs[0].failure, NotFinite)
    assert runs[0].status is SequenceStatus.FAILED
    assert runs[0].cache is None
    assert runs[0].values is None
    assert_same_bytes(runs[1], tiny.run(good))


def kv_bytes(run: Sequence) -> int:
    """Bytes of keys and values that a sequence holds in PREFILL and DECODE."""
    cache = run.chunks.cache if isinstance(run.chunks, Prefill) else run.cache
    if cache is None:
        return 0
    return cache.own.nbytes + (0 if cache.prefix is None else cache.prefix.nbytes)


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_keys_and_values_stay_within_the_bytes_announced(
    oracles: MakeOracle, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caches of int8 are float16, but not a prompt that paths share."""
    tiny = build_engine(*oracles("tiny").sources, dtype=dtype, max_context=64, torch_threads=1)
    allocate = tiny.model.allocate_cache
    held = 0

    def counting(batch_size: int, capacity: int) -> KVCache:
        nonlocal held
        cache = allocate(batch_size, capacity)
        # With what the sequence still has of its segment before.
        held = max(held, cache.own.nbytes + (kv_bytes(run) if run.cache is not None else 0))
        return cache

    monkeypatch.setattr(tiny.model, "allocate_cache", counting)
    for request in mixed_requests():
        run, held = tiny.start(request), 0
        while not run.ended:
            tiny.step([run])
            held = max(held, kv_bytes(run))
        assert 0 < held <= tiny.kv_cache_bytes(request)
        assert run.cache is None


def test_cache_that_cannot_be_allocated_fails_its_own_sequence(
    tiny: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also at the segment that follows a full window, which begins after a shared decode step."""
    good, bad = walk(20).request(60, seed=1), walk(50).request(60, seed=2)
    expected = tiny.run(good)
    runs = [tiny.start(bad), tiny.start(good)]
    while len(runs[0].segments) == len(tiny.start(bad).segments):
        tiny.step(runs)
    allocate = tiny.model.allocate_cache

    def full(batch_size: int, capacity: int) -> KVCache:
        if runs[0].status is SequenceStatus.PREFILL:
            raise MemoryError
        return allocate(batch_size, capacity)

    while runs[0].status is not SequenceStatus.DECODE:
        tiny.step(runs)
    monkeypatch.setattr(tiny.model, "allocate_cache", full)
    while not all(run.ended for run in runs):
        tiny.step([run for run in runs if not run.ended])
    assert isinstance(runs[0].failure, MemoryError)
    assert_same_bytes(runs[1], expected)


@pytest.mark.parametrize("policy", ["anchor", "exact"])
def test_chunks_and_steps_are_those_announced(engines: MakeEngine, policy: WindowPolicy) -> None:
    engine = engines("tiny", policy)
    for request in [*mixed_requests(), walk(300).request(70, top_k=0, sample_count=20, seed=1)]:
        remaining = engine.run(request).remaining
        assert remaining == PhaseCounts(rows=request.sample_count, steps=0)


def test_forecast_of_many_chunks_does_not_hold_up_a_small_one(tiny: Engine) -> None:
    """Sequences take turns to run a chunk; the order changes no value."""
    large = walk(60).request(100, top_k=0, sample_count=60, seed=1)
    small = walk(8).request(2)
    alone = tiny.run(small)
    runs = [tiny.start(large)]
    while runs[0].remaining.prefill > 179:  # three more windows of 60 paths, a chunk each
        tiny.step(runs)
    runs.append(tiny.start(small))
    while not runs[1].ended:
        tiny.step([run for run in runs if not run.ended])
    assert runs[0].remaining.prefill > 160
    assert_same_bytes(runs[1], alone)


def test_step_runs_the_prompts_of_all_new_forecasts_before_one_decode_step(
    tiny: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny.pace, "clock", lambda: 0.0)
    decoding, *new = (tiny.start(walk(20).request(9)) for _ in range(4))
    tiny.step([decoding])
    before = decoding.decoded
    tiny.step([decoding, *new])
    assert decoding.decoded == before + 1
    assert {run.decoded for run in new} == {before}


def test_prompts_do_not_hold_up_decode_steps_for_longer_than_a_burst(
    tiny: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = itertools.count()
    monkeypatch.setattr(tiny.pace, "clock", lambda: next(ticks) * BURST_SECONDS / 6)
    decoding, *new = (tiny.start(walk(20).request(30)) for _ in range(9))
    while decoding.status is not SequenceStatus.DECODE:
        tiny.step([decoding])
    before = decoding.decoded
    tiny.step([decoding, *new])
    assert decoding.decoded == before + 1
    assert SequenceStatus.TOKENIZE in {run.status for run in new}


@dataclass(frozen=True)
class Failing:
    """Chunks of which the first raises."""

    failure: Exception
    phase: Phase = "tokenize"

    def run(self, _: Sequence) -> bool:
        raise self.failure


def test_failing_chunk_fails_its_own_sequence(tiny: Engine) -> None:
    good, bad = tiny.start(walk(20).request(4)), tiny.start(walk(21).request(4))
    failure = RuntimeError("tokenize")
    bad.chunks = Failing(failure)
    while not good.ended:
        tiny.step([run for run in (bad, good) if not run.ended])
    assert bad.failure is failure
    assert good.status is SequenceStatus.DONE


@pytest.mark.usefixtures("one_chunk_a_step")
def test_failing_decode_step_fails_all_that_took_part(
    tiny: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoding = [tiny.start(walk(20).request(4)) for _ in range(2)]
    while any(run.status is not SequenceStatus.DECODE for run in decoding):
        tiny.step([run for run in decoding if run.status is not SequenceStatus.DECODE])
    pending = tiny.start(walk(20).request(4))

    def fail(*_: object) -> Tensor:
        raise RuntimeError("decode")

    monkeypatch.setattr(tiny.model, "decode", fail)
    tiny.step([*decoding, pending])
    assert [run.status for run in decoding] == [SequenceStatus.FAILED] * 2
    assert pending.status is SequenceStatus.PREFILL
