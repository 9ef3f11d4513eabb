"""The tokenizer with packed weights, against the plain module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from kronos_api.checkpoints.loader import load_tokenizer
from kronos_api.engine.int8 import int8_problem
from kronos_api.engine.kv_memory import KVMemory
from kronos_api.engine.tokenizer_runner import TokenizerRunner
from kronos_api.model import KronosTokenizer
from tests.oracle import MakeOracle

ROWS = 40


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture
def tokenizer(oracles: MakeOracle) -> KronosTokenizer:
    return load_tokenizer(oracles("tiny").sources[1])[0]


@pytest.fixture
def runner(tokenizer: KronosTokenizer) -> TokenizerRunner:
    return TokenizerRunner(tokenizer, ROWS, KVMemory())


def candles(rows: int) -> Tensor:
    return torch.randn((rows, 6), generator=torch.Generator().manual_seed(4))


def tokens(paths: int, rows: int) -> tuple[Tensor, Tensor]:
    s1, s2 = torch.randint(0, 1024, (2, paths, rows), generator=torch.Generator().manual_seed(5))
    return s1, s2


@pytest.mark.parametrize("chunks", [[ROWS], [16, 16, 8], [1, 39]])
def test_encoding_in_chunks_equals_the_plain_tokenizer(
    runner: TokenizerRunner, tokenizer: KronosTokenizer, chunks: list[int]
) -> None:
    x, cache = candles(ROWS), runner.encoder_cache(ROWS)
    parts = [runner.encode(part, cache) for part in x.split(chunks)]
    assert cache.length == ROWS
    expected = tokenizer.tokens(tokenizer.latents(x.unsqueeze(0)))
    for found, wanted in zip(zip(*parts, strict=True), expected, strict=True):
        assert torch.equal(torch.cat(found), wanted[0])


@pytest.mark.parametrize("chunks", [[ROWS], [30, 10]])
def test_decoding_equals_the_plain_tokenizer(
    runner: TokenizerRunner, tokenizer: KronosTokenizer, chunks: list[int]
) -> None:
    s1, s2 = tokens(3, ROWS)
    cache, parts = runner.decoder_cache(3, ROWS), []
    for first, second in zip(s1.split(chunks, dim=1), s2.split(chunks, dim=1), strict=True):
        parts.append(runner.decode(first, second, cache))
    found, expected = torch.cat(parts, dim=1), tokenizer.reconstruct(tokenizer.codes(s1, s2))
    assert (found.shape, found.dtype) == ((3, ROWS, 6), torch.float32)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(
    int8_problem(torch.device("cpu")) is not None, reason="no fast int8 kernel here"
)
def test_int8_is_for_the_decoder_alone(runner: TokenizerRunner, tokenizer: KronosTokenizer) -> None:
    narrow = TokenizerRunner(tokenizer, ROWS, KVMemory(), dtype=torch.int8)
    x = candles(ROWS)
    encoded = [one.encode(x, one.encoder_cache(ROWS)) for one in (narrow, runner)]
    for found, wanted in zip(*encoded, strict=True):
        assert torch.equal(found, wanted)
    found, wanted = (
        one.decode(*tokens(3, ROWS), one.decoder_cache(3, ROWS)) for one in (narrow, runner)
    )
    error = (found - wanted).abs().mean() / wanted.std()
    assert 0 < error < 0.05


@pytest.mark.parametrize("size", [1, 2, 4])
def test_paths_after_a_shared_prompt_decode_the_same_in_groups(
    runner: TokenizerRunner, size: int
) -> None:
    prompt, own = tokens(1, 20), tokens(7, 12)
    cache = runner.decoder_cache(1, 20)
    runner.decode(*prompt, cache)

    def decode(start: int, end: int) -> Tensor:
        s1, s2 = (part[start:end] for part in own)
        return runner.decode(s1, s2, cache.fork(len(s1), 12))

    groups = torch.cat([decode(start, start + size) for start in range(0, 7, size)])
    torch.testing.assert_close(groups, decode(0, 7), rtol=1e-4, atol=1e-5)
