"""The transformer layers with packed weights, against the plain modules."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from kronos_api.engine import linear as linear_module
from kronos_api.engine import transformer as transformer_module
from kronos_api.engine.kernels.compiled import CompiledKernels
from kronos_api.engine.kernels.plain import PlainKernels
from kronos_api.engine.kv_cache import KVCache
from kronos_api.engine.kv_memory import KVMemory
from kronos_api.engine.linear import FEWEST_ROWS, OneDNNLinear
from kronos_api.engine.transformer import Transformer
from kronos_api.model.layers import Block

KERNELS = [PlainKernels, CompiledKernels]
WIDTH, LAYERS, POSITIONS = 32, 2, 24


@pytest.fixture(scope="module")
def blocks() -> nn.ModuleList:
    torch.manual_seed(0)
    made = nn.ModuleList(Block(WIDTH, 4, 48, 0.0, 0.0, 0.0) for _ in range(LAYERS)).eval()
    for norm in made.modules():
        if isinstance(norm, nn.RMSNorm):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
    return made


@pytest.fixture(params=KERNELS, ids=lambda kernels: kernels.__name__)
def transformer(
    blocks: nn.ModuleList, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Transformer]:
    monkeypatch.setattr(transformer_module, "choose_kernels", lambda *_: request.param())
    with torch.inference_mode():
        yield Transformer(blocks, POSITIONS, decodes=True)


def numbers(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def empty(transformer: Transformer, paths: int, capacity: int = POSITIONS) -> KVCache:
    return KVCache.allocate([transformer.heads] * LAYERS, paths, capacity, WIDTH, KVMemory())


def plain(blocks: nn.ModuleList, x: Tensor) -> Tensor:
    for block in blocks:
        x = block(x)
    return x


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("chunks", [[24], [1] * 24, [7, 1, 16]])
def test_prefill_in_chunks_equals_the_plain_layers(
    blocks: nn.ModuleList, transformer: Transformer, chunks: list[int]
) -> None:
    x, cache, parts = numbers(3, POSITIONS, WIDTH), empty(transformer, 3), []
    for part in x.split(chunks, dim=1):
        parts.append(transformer.prefill(part, cache))
        cache.length += part.shape[1]
    close(torch.cat(parts, dim=1), plain(blocks, x))


def test_filled_cache_holds_the_keys_and_values_of_prefill(transformer: Transformer) -> None:
    x, filled, prefilled = numbers(2, 9, WIDTH), empty(transformer, 2), empty(transformer, 2)
    transformer.fill(x, filled)
    transformer.prefill(x, prefilled)
    assert torch.equal(filled.own[:, :, :, :9], prefilled.own[:, :, :, :9])


def test_decode_equals_the_plain_layers(blocks: nn.ModuleList, transformer: Transformer) -> None:
    x, cache = numbers(2, POSITIONS, WIDTH), empty(transformer, 2)
    transformer.prefill(x[:, :20], cache)
    cache.length += 20
    for at in range(20, POSITIONS):
        found = transformer.decode(x[:, at], [cache])
        cache.length += 1
        close(found, plain(blocks, x[:, : at + 1])[:, -1])


def test_decode_over_a_shared_prompt_equals_the_plain_layers(
    blocks: nn.ModuleList, transformer: Transformer
) -> None:
    prompt, own = numbers(1, 15, WIDTH), numbers(3, 4, WIDTH, seed=2)
    cache = empty(transformer, 1)
    transformer.prefill(prompt, cache)
    cache.length += 15
    fork = cache.fork(3, 4)
    whole = torch.cat([prompt.expand(3, -1, -1), own], dim=1)
    for at in range(4):
        found = transformer.decode(own[:, at], [fork])
        fork.length += 1
        close(found, plain(blocks, whole[:, : 15 + at + 1])[:, -1])


def test_decode_gives_rows_the_same_bits_alone_and_in_a_batch(
    transformer: Transformer,
) -> None:
    """Forecasts of different lengths and numbers of paths in one decode step."""
    caches, rows = [], []
    for number, (paths, length) in enumerate([(1, 3), (4, 20), (2, 0), (1, 11)]):
        cache = empty(transformer, paths)
        if length:
            transformer.prefill(numbers(paths, length, WIDTH, seed=number), cache)
            cache.length += length
        caches.append(cache)
        rows.append(numbers(paths, WIDTH, seed=10 + number))
    alone = [transformer.decode(x, [cache]) for x, cache in zip(rows, caches, strict=True)]
    assert torch.equal(transformer.decode(torch.cat(rows), caches), torch.cat(alone))


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch has no oneDNN")
def test_decode_of_one_path_runs_gemms_of_the_fewest_rows(
    blocks: nn.ModuleList, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []
    call = OneDNNLinear.__call__

    def counting(linear: OneDNNLinear, x: Tensor) -> Tensor:
        rows.append(len(x))
        return call(linear, x)

    monkeypatch.setattr(OneDNNLinear, "__call__", counting)
    monkeypatch.setattr(linear_module, "_decode_backend", lambda _: None)
    with torch.inference_mode():
        transformer = Transformer(blocks, POSITIONS, decodes=True)
        found = transformer.decode(numbers(1, WIDTH), [empty(transformer, 1)])
    assert found.shape == (1, WIDTH)
    assert rows == [FEWEST_ROWS] * LAYERS
