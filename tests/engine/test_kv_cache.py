"""The KV cache of one forecast: what is stored is what attention reads."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kronos_api.engine.kv_cache import KVCache, cache_bytes
from kronos_api.engine.kv_memory import KVMemory

WIDTH = 12
HEADS = [2, 3]
"""Of the two layers, which split the same channels differently."""


def keys_values(batch_size: int, q_len: int, seed: int) -> Tensor:
    """Keys and values [B, q_len, 2, C]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((batch_size, q_len, 2, WIDTH), generator=generator)


def allocated(batch_size: int, capacity: int) -> KVCache:
    cache = KVCache.allocate(HEADS, batch_size, capacity, WIDTH, KVMemory())
    cache.own.fill_(float("nan"))  # what was not stored must not be read
    return cache


def by_head(stored: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """The same as attention reads it, by copying: [B, H, q_len, D] each."""
    keys, values = stored.unflatten(3, (heads, -1)).permute(2, 0, 3, 1, 4)
    return keys, values


def fill(cache: KVCache, q_len: int, seed: int) -> list[Tensor]:
    """Store `q_len` positions in every layer and advance; what was stored, by layer."""
    stored = [keys_values(cache.batch_size, q_len, seed + layer) for layer in range(len(HEADS))]
    for layer, one in enumerate(stored):
        cache.store(layer, *one.unbind(2))
    cache.length += q_len
    return stored


def test_positions_are_read_in_the_order_stored() -> None:
    cache = allocated(batch_size=3, capacity=8)
    parts = [fill(cache, q_len, seed=10 * q_len) for q_len in (3, 1, 4)]
    assert (cache.batch_size, cache.position, cache.length) == (3, 8, 8)
    for layer, heads in enumerate(HEADS):
        whole = torch.cat([part[layer] for part in parts], dim=1)
        for found, expected in zip(cache.read(layer, 0), by_head(whole, heads), strict=True):
            assert torch.equal(found, expected)


def test_positions_just_stored_are_read_before_the_cache_advances() -> None:
    cache = allocated(batch_size=1, capacity=4)
    (first, _) = fill(cache, 2, seed=1)
    new = keys_values(1, 2, seed=5)
    cache.store(0, *new.unbind(2))
    keys, values = cache.read(0, q_len=2)
    whole = by_head(torch.cat([first, new], dim=1), HEADS[0])
    assert torch.equal(keys, whole[0])
    assert torch.equal(values, whole[1])
    assert cache.read(0, 0)[0].shape[2] == 2


def test_paths_of_a_fork_share_the_prompt_and_nothing_else() -> None:
    prompt = allocated(batch_size=1, capacity=6)
    stored = fill(prompt, 5, seed=1)
    fork = prompt.fork(batch_size=4, capacity=3)
    assert (fork.batch_size, fork.length, fork.position) == (4, 0, 5)
    own = fill(fork, 1, seed=20)
    assert fork.position == 6
    for layer, heads in enumerate(HEADS):
        shared = fork.read_prefix(layer)
        assert [x.shape[0] for x in shared] == [1, 1]
        for found, expected in zip(shared, by_head(stored[layer], heads), strict=True):
            assert torch.equal(found, expected)
        for found, expected in zip(fork.read(layer, 0), by_head(own[layer], heads), strict=True):
            assert torch.equal(found, expected)
    assert fork.prefix is not None
    assert fork.prefix.data_ptr() == prompt.own.data_ptr()  # a view, not a copy


def test_path_cache_is_a_view_of_its_row() -> None:
    cache = allocated(batch_size=3, capacity=4)
    stored = [fill(cache.path_cache(index), 4, seed=30 * index) for index in range(3)]
    assert cache.length == 0  # the caller advances the whole cache
    cache.length = 4
    for layer, heads in enumerate(HEADS):
        whole = torch.cat([part[layer] for part in stored])
        for found, expected in zip(cache.read(layer, 0), by_head(whole, heads), strict=True):
            assert torch.equal(found, expected)


def test_storing_beyond_the_capacity_raises() -> None:
    cache = allocated(batch_size=1, capacity=2)
    fill(cache, 2, seed=1)
    with pytest.raises(RuntimeError, match="holds 2 of 2"):
        cache.store(0, *keys_values(1, 1, seed=2).unbind(2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("batch_size", "capacity"), [(1, 1), (1, 512), (64, 33)])
def test_cache_bytes_are_allocated(batch_size: int, capacity: int, dtype: torch.dtype) -> None:
    cache = KVCache.allocate(HEADS, batch_size, capacity, WIDTH, KVMemory(), dtype=dtype)
    assert cache.own.nbytes == cache_bytes(len(HEADS), batch_size * capacity, WIDTH, dtype)
