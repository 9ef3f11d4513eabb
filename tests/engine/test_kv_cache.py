"""The KV cache of one forecast: what is stored is what attention reads."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kronos_api.engine.kv_cache import Memory, bytes_needed

WIDTH = 12
HEADS = [2, 3]
"""Of the two layers, which split the same channels differently."""


def pair(paths: int, new: int, seed: int) -> Tensor:
    """Keys and values [paths, T, 2, C]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((paths, new, 2, WIDTH), generator=generator)


def allocated(paths: int, capacity: int) -> Memory:
    memory = Memory.allocate(HEADS, paths, capacity, WIDTH, torch.empty(0))
    memory.own.fill_(float("nan"))  # what was not stored must not be read
    return memory


def by_head(stored: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """The same as attention reads it, by copying: [paths, H, T, D] each."""
    keys, values = stored.unflatten(3, (heads, -1)).permute(2, 0, 3, 1, 4)
    return keys, values


def fill(memory: Memory, new: int, seed: int) -> list[Tensor]:
    """Store `new` positions in every layer and advance; what was stored, by layer."""
    stored = [pair(memory.paths, new, seed + layer) for layer in range(len(HEADS))]
    for layer, one in enumerate(stored):
        memory.store(layer, one)
    memory.length += new
    return stored


def test_positions_are_read_in_the_order_they_were_stored() -> None:
    memory = allocated(paths=3, capacity=8)
    parts = [fill(memory, new, seed=10 * new) for new in (3, 1, 4)]
    assert (memory.paths, memory.position, memory.length) == (3, 8, 8)
    for layer, heads in enumerate(HEADS):
        whole = torch.cat([part[layer] for part in parts], dim=1)
        for found, expected in zip(memory.known(layer, 0), by_head(whole, heads), strict=True):
            assert torch.equal(found, expected)


def test_positions_just_stored_are_known_before_the_cache_advances() -> None:
    memory = allocated(paths=1, capacity=4)
    (first, _) = fill(memory, 2, seed=1)
    new = pair(1, 2, seed=5)
    memory.store(0, new)
    keys, values = memory.known(0, new=2)
    whole = by_head(torch.cat([first, new], dim=1), HEADS[0])
    assert torch.equal(keys, whole[0])
    assert torch.equal(values, whole[1])
    assert memory.known(0, 0)[0].shape[2] == 2


def test_paths_of_a_fork_share_the_prompt_and_nothing_else() -> None:
    prompt = allocated(paths=1, capacity=6)
    stored = fill(prompt, 5, seed=1)
    fork = prompt.fork(paths=4, capacity=3)
    assert (fork.paths, fork.length, fork.position) == (4, 0, 5)
    own = fill(fork, 1, seed=20)
    assert fork.position == 6
    for layer, heads in enumerate(HEADS):
        shared = fork.prompt(layer)
        assert [x.shape[0] for x in shared] == [1, 1]
        for found, expected in zip(shared, by_head(stored[layer], heads), strict=True):
            assert torch.equal(found, expected)
        for found, expected in zip(fork.known(layer, 0), by_head(own[layer], heads), strict=True):
            assert torch.equal(found, expected)
    assert fork.shared is not None
    assert fork.shared.data_ptr() == prompt.own.data_ptr()  # a view, not a copy


def test_a_path_is_a_view_of_its_row() -> None:
    memory = allocated(paths=3, capacity=4)
    stored = [fill(memory.path(index), 4, seed=30 * index) for index in range(3)]
    assert memory.length == 0  # the caller advances the whole
    memory.length = 4
    for layer, heads in enumerate(HEADS):
        whole = torch.cat([part[layer] for part in stored])
        for found, expected in zip(memory.known(layer, 0), by_head(whole, heads), strict=True):
            assert torch.equal(found, expected)


def test_more_than_the_capacity_is_refused() -> None:
    memory = allocated(paths=1, capacity=2)
    fill(memory, 2, seed=1)
    with pytest.raises(RuntimeError):
        memory.store(0, pair(1, 1, seed=2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("paths", "capacity"), [(1, 1), (1, 512), (64, 33)])
def test_bytes_are_what_was_announced(paths: int, capacity: int, dtype: torch.dtype) -> None:
    memory = Memory.allocate(HEADS, paths, capacity, WIDTH, torch.empty(0, dtype=dtype))
    announced = bytes_needed(len(HEADS), paths * capacity, WIDTH, dtype)
    assert memory.own.nbytes == announced
