"""Tokenize, prefill and detokenize in chunks: the grid, what is shared, and what is announced."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from kronos_api.engine import chunks
from kronos_api.engine.chunks import Detokenization, NotFinite, Prefill, Tokenization, count_phases
from kronos_api.engine.engine import Engine
from kronos_api.engine.sequence import Sequence, SequenceStatus
from kronos_api.engine.window import Segment
from tests.oracle import walk


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "CHUNK", 16)
    monkeypatch.setattr(chunks, "MOST_TOKENS", 64)


pytestmark = pytest.mark.usefixtures("one_chunk_a_step")


def started(
    engine: Engine, history: int, horizon: int, status: SequenceStatus, samples: int = 1
) -> Sequence:
    """A sequence that has just entered `status`."""
    run = engine.start(walk(history).request(horizon, top_k=0, sample_count=samples))
    while run.status is not status:
        engine.step([run])
    return run


def run_all(run: Sequence) -> int:
    """Run the chunks of the current phase; how many there are."""
    assert run.chunks is not None
    count = 1
    while not run.chunks.run(run):
        count += 1
    return count


@pytest.mark.parametrize(("history", "count"), [(1, 1), (16, 1), (17, 2), (48, 3)])
def test_history_is_tokenized_on_the_grid(tiny: Engine, history: int, count: int) -> None:
    run = started(tiny, history, 3, SequenceStatus.TOKENIZE, samples=2)
    assert isinstance(run.chunks, Tokenization)
    assert run_all(run) == count
    assert torch.equal(run.s1[0], run.s1[1])  # the history is the same in every path


def test_prompt_of_history_is_prefilled_once_for_all_paths(tiny: Engine) -> None:
    run = started(tiny, 40, 5, SequenceStatus.PREFILL, samples=3)
    assert isinstance(run.chunks, Prefill)
    assert run_all(run) == 3
    cache, hidden = run.chunks.complete()
    assert hidden.shape == (3, tiny.model.width)
    assert torch.equal(hidden[0], hidden[2])
    assert (cache.batch_size, cache.position, cache.length) == (3, 40, 0)
    assert cache.own.shape[3] == 4  # the last decoded candle is not stored
    assert cache.prefix is not None


def test_single_path_needs_no_shared_prefix(tiny: Engine) -> None:
    run = started(tiny, 40, 5, SequenceStatus.PREFILL)
    assert isinstance(run.chunks, Prefill)
    run_all(run)
    cache, _ = run.chunks.complete()
    assert cache.prefix is None
    assert (cache.batch_size, cache.length, cache.own.shape[3]) == (1, 40, 44)


def test_prompt_of_decoded_candles_is_prefilled_path_by_path(tiny: Engine) -> None:
    run = started(tiny, 40, 5, SequenceStatus.DECODE, samples=3)
    while run.decoded < 4:
        tiny.step([run])
    prefill = Prefill(tiny.model, Segment(prompt=20, steps=2), sample_count=3, shared=False)
    run.begin(SequenceStatus.PREFILL, prefill)
    assert run_all(run) == 3 * 2
    cache, hidden = prefill.complete()
    assert (cache.batch_size, cache.length, cache.prefix) == (3, 20, None)
    alone = Prefill(tiny.model, Segment(prompt=20, steps=2), sample_count=3, shared=True)
    run.begin(SequenceStatus.PREFILL, alone)
    run_all(run)
    assert torch.equal(hidden[:1], alone.hidden[0])  # path 0 does not depend on the others


@pytest.mark.parametrize(("samples", "horizon", "count"), [(1, 5, 1), (24, 8, 3), (3, 64, 3)])
def test_paths_are_detokenized_in_groups(
    tiny: Engine, samples: int, horizon: int, count: int
) -> None:
    """Groups of 64 candles, but at least one path."""
    run = started(tiny, 8, 1, SequenceStatus.DETOKENIZE, samples=samples)
    request = walk(8).request(horizon, sample_count=samples)
    run.s1, run.s2 = torch.randint(0, 1024, (2, samples, 8 + horizon))
    detokenization = Detokenization(tiny.tokenizer, [Segment(8, horizon)], request)
    run.begin(SequenceStatus.DETOKENIZE, detokenization)
    assert run_all(run) == count
    assert detokenization.values.shape == (samples, horizon, 6)
    assert np.isfinite(detokenization.values).all()


def test_values_that_are_not_finite_raise(tiny: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    run = started(tiny, 8, 3, SequenceStatus.DETOKENIZE)
    decode = tiny.tokenizer.decode
    monkeypatch.setattr(tiny.tokenizer, "decode", lambda *args: decode(*args) * float("nan"))
    with pytest.raises(NotFinite, match="not finite"):
        run_all(run)


def test_count_phases_counts_chunks_of_every_path() -> None:
    request = walk(40).request(50, sample_count=3)
    segments = [Segment(32, 32), Segment(32, 18)]
    counts = count_phases(request, segments, segments)
    assert (counts.rows, counts.steps) == (3, 50)
    assert counts.tokenize == 3  # 40 candles
    assert counts.prefill == 2 + 3 * 2  # a shared prompt, then one for each path
    assert counts.detokenize == 2 + 3  # groups of 2 paths, then each path
