"""The predictor laid out for decoding: against the plain model, and batch-invariant bit by bit."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from kronos_api.checkpoints.loader import load_model
from kronos_api.engine.engine import Engine
from kronos_api.engine.kv_cache import Memory
from kronos_api.engine.model_runner import Network
from kronos_api.model import Kronos
from tests.oracle import MakeOracle

Forecast = tuple[int, int, int]
"""Paths, candles of the prompt, and a seed."""


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture
def network(tiny: Engine) -> Network:
    return tiny.network


@pytest.fixture
def model(oracles: MakeOracle) -> Kronos:
    return load_model(oracles("tiny").sources[0])[0]


def candles(paths: int, length: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """s1, s2 [B, T] and stamps [T, 5]."""
    generator = torch.Generator().manual_seed(seed)
    s1, s2 = torch.randint(0, 1024, (2, paths, length), generator=generator)
    stamps = torch.randint(1, 7, (length, 5), generator=generator)
    return s1, s2, stamps


def prefilled(network: Network, paths: int, length: int, seed: int) -> Memory:
    s1, s2, stamps = candles(paths, length, seed)
    memory = network.memory(paths, length + 4)
    if length:
        network.extend(network.embed(s1, s2, network.times(stamps)), memory)
    return memory


def test_prefill_and_steps_equal_the_plain_model(network: Network, model: Kronos) -> None:
    s1, s2, stamps = candles(2, 20, seed=1)
    x = network.embed(s1, s2, network.times(stamps))
    memory = network.memory(2, 20)
    hidden = [network.extend(x[:, :12], memory)]
    hidden += [network.step(x[:, at], [memory]).unsqueeze(1) for at in range(12, 20)]
    expected = model.hidden(s1, s2, stamps.expand(2, -1, -1))
    torch.testing.assert_close(torch.cat(hidden, dim=1), expected, rtol=1e-4, atol=1e-5)
    last, following = hidden[-1][:, 0], torch.tensor([7, 900])
    first = network.s1_logits(last)
    torch.testing.assert_close(first, model.s1_logits(expected[:, -1]), rtol=1e-4, atol=1e-4)
    shifted = torch.cat([s1[:, 1:], following.unsqueeze(1)], dim=1)
    second = network.s2_logits(last, following, [memory])
    torch.testing.assert_close(
        second, model.s2_logits(expected, shifted)[:, -1], rtol=1e-4, atol=1e-4
    )


def decode(network: Network, forecasts: list[Forecast]) -> list[list[Tensor]]:
    """Hidden states and logits of three decode steps shared by `forecasts`, for each of them."""
    memories = [prefilled(network, *forecast) for forecast in forecasts]
    counts = [memory.paths for memory in memories]
    found: list[list[Tensor]] = [[] for _ in forecasts]
    for step in range(3):
        drawn = [candles(paths, 1, seed=100 * seed + step) for paths, _, seed in forecasts]
        x = [network.embed(s1[:, 0], s2[:, 0], network.times(time)) for s1, s2, time in drawn]
        hidden = network.step(torch.cat(x), memories)
        s1 = torch.cat([one[:, 0] for one, _, _ in drawn])
        for out in (hidden, network.s1_logits(hidden), network.s2_logits(hidden, s1, memories)):
            for parts, part in zip(found, out.split(counts), strict=True):
                parts.append(part)
    return found


def test_logits_have_the_same_bits_alone_and_in_a_batch(network: Network) -> None:
    """Equal tokens would not do: a difference in the last bit seldom draws another one."""
    shapes = [(1, 9), (3, 40), (1, 1), (64, 17), (2, 30), (1, 9)]
    forecasts = [(*shape, seed) for seed, shape in enumerate(shapes)]
    for forecast, batch in zip(forecasts, decode(network, forecasts), strict=True):
        (alone,) = decode(network, [forecast])
        assert all(torch.equal(one, other) for one, other in zip(alone, batch, strict=True))
