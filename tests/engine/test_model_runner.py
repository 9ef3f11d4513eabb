"""The model with packed weights: against the plain model, and batch-invariant bit by bit."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from kronos_api.checkpoints.loader import load_model
from kronos_api.engine.engine import Engine
from kronos_api.engine.kv_cache import KVCache
from kronos_api.engine.model_runner import ModelRunner
from kronos_api.model import Kronos
from tests.oracle import MakeOracle

Forecast = tuple[int, int, int]
"""Paths, candles of the prompt, and a seed."""


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture
def runner(tiny: Engine) -> ModelRunner:
    return tiny.model


@pytest.fixture
def model(oracles: MakeOracle) -> Kronos:
    return load_model(oracles("tiny").sources[0])[0]


def candles(paths: int, length: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """s1, s2 [B, T] and time features [T, 5]."""
    generator = torch.Generator().manual_seed(seed)
    s1, s2 = torch.randint(0, 1024, (2, paths, length), generator=generator)
    features = torch.randint(1, 7, (length, 5), generator=generator)
    return s1, s2, features


def prefilled(runner: ModelRunner, paths: int, length: int, seed: int) -> KVCache:
    s1, s2, features = candles(paths, length, seed)
    cache = runner.allocate_cache(paths, length + 4)
    if length:
        runner.prefill(runner.embed(s1, s2, runner.embed_times(features)), cache)
    return cache


def test_prefill_and_decode_equal_the_plain_model(runner: ModelRunner, model: Kronos) -> None:
    s1, s2, features = candles(2, 20, seed=1)
    x = runner.embed(s1, s2, runner.embed_times(features))
    cache = runner.allocate_cache(2, 20)
    hidden = [runner.prefill(x[:, :12], cache)]
    hidden += [runner.decode(x[:, at], [cache]).unsqueeze(1) for at in range(12, 20)]
    expected = model.hidden(s1, s2, features.expand(2, -1, -1))
    torch.testing.assert_close(torch.cat(hidden, dim=1), expected, rtol=1e-4, atol=1e-5)
    last, next_s1 = hidden[-1][:, 0], torch.tensor([7, 900])
    first = runner.s1_logits(last)
    torch.testing.assert_close(first, model.s1_logits(expected[:, -1]), rtol=1e-4, atol=1e-4)
    shifted = torch.cat([s1[:, 1:], next_s1.unsqueeze(1)], dim=1)
    second = runner.s2_logits(last, next_s1, [cache])
    torch.testing.assert_close(
        second, model.s2_logits(expected, shifted)[:, -1], rtol=1e-4, atol=1e-4
    )


def decode(runner: ModelRunner, forecasts: list[Forecast]) -> list[list[Tensor]]:
    """Hidden states and logits of three decode steps shared by `forecasts`, for each of them."""
    caches = [prefilled(runner, *forecast) for forecast in forecasts]
    counts = [cache.batch_size for cache in caches]
    found: list[list[Tensor]] = [[] for _ in forecasts]
    for step in range(3):
        drawn = [candles(paths, 1, seed=100 * seed + step) for paths, _, seed in forecasts]
        x = [runner.embed(s1[:, 0], s2[:, 0], runner.embed_times(time)) for s1, s2, time in drawn]
        hidden = runner.decode(torch.cat(x), caches)
        s1 = torch.cat([one[:, 0] for one, _, _ in drawn])
        for out in (hidden, runner.s1_logits(hidden), runner.s2_logits(hidden, s1, caches)):
            for parts, part in zip(found, out.split(counts), strict=True):
                parts.append(part)
    return found


def test_logits_have_the_same_bits_alone_and_in_a_batch(runner: ModelRunner) -> None:
    """Equal tokens prove little: a difference in the last bit seldom changes a token."""
    shapes = [(1, 9), (3, 40), (1, 1), (64, 17), (2, 30), (1, 9)]
    forecasts = [(*shape, seed) for seed, shape in enumerate(shapes)]
    for forecast, batch in zip(forecasts, decode(runner, forecasts), strict=True):
        (alone,) = decode(runner, [forecast])
        assert all(torch.equal(one, other) for one, other in zip(alone, batch, strict=True))
