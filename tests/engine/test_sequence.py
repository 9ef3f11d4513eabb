"""The status of a sequence, and what it holds in each."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kronos_api.engine.engine import Engine
from kronos_api.engine.sequence import Sequence, SequenceStatus
from tests.oracle import walk

pytestmark = pytest.mark.usefixtures("one_chunk_a_step")


def statuses(engine: Engine, run: Sequence) -> list[SequenceStatus]:
    """Statuses that `run` passes through, in order."""
    seen = [run.status]
    while not run.ended:
        engine.step([run])
        if run.status is not seen[-1]:
            seen.append(run.status)
    return seen


def test_status_follows_the_phases(tiny: Engine) -> None:
    run = tiny.start(walk(10).request(5))
    assert [status.value for status in statuses(tiny, run)] == [
        "tokenize",
        "prefill",
        "decode",
        "detokenize",
        "done",
    ]
    assert run.values is not None


def test_full_window_is_prefilled_again(tiny: Engine) -> None:
    """A context of 64 holds 50 candles and 14 of the horizon at first."""
    seen = statuses(tiny, tiny.start(walk(50).request(70)))
    assert seen.count(SequenceStatus.PREFILL) == seen.count(SequenceStatus.DECODE) == 3


def test_failure_ends_a_sequence_and_releases_its_cache(tiny: Engine) -> None:
    run = tiny.start(walk(10).request(5))
    while run.status is not SequenceStatus.DECODE:
        tiny.step([run])
    assert run.cache is not None
    assert not run.ended
    failure = ValueError("x")
    run.fail(failure)
    assert run.ended
    assert run.status is SequenceStatus.FAILED
    assert run.failure is failure
    assert run.cache is run.chunks is None


def test_values_end_a_sequence(tiny: Engine) -> None:
    run = tiny.start(walk(10).request(5))
    run.finish(np.zeros((1, 5, 6), dtype=np.float32))
    assert run.ended
    assert run.status is SequenceStatus.DONE
    assert run.chunks is None


def test_append_stores_the_tokens_of_one_candle(tiny: Engine) -> None:
    run = tiny.start(walk(10).request(5, sample_count=2))
    run.steps_left = 5
    with torch.inference_mode():
        run.append(torch.tensor([3, 4]), torch.tensor([5, 6]))
    assert run.s1[:, 10].tolist() == [3, 4]
    assert run.s2[:, 10].tolist() == [5, 6]
    assert (run.num_tokens, run.decoded, run.steps_left, run.remaining.steps) == (11, 1, 4, 4)


@pytest.mark.parametrize("horizon", [1, 5])
def test_decoded_candles_are_counted_from_the_end_of_the_history(
    tiny: Engine, horizon: int
) -> None:
    run, counts = tiny.start(walk(10).request(horizon)), []
    while not run.ended:
        counts.append(run.decoded)
        tiny.step([run])
    assert counts == sorted(counts)
    assert run.decoded == horizon
