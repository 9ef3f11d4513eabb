"""KV caches take the memory of those that have ended."""

from __future__ import annotations

import gc
import threading

import pytest
import torch

from kronos_api.engine.kv_cache import CPU, KVCache
from kronos_api.engine.kv_memory import SMALLEST, KVMemory

SIZE = 2**20


def lent(memory: KVMemory, size: int = SIZE) -> torch.Tensor:
    return memory.empty((size,), torch.uint8, CPU)


def test_tensor_has_the_shape_and_type_and_is_aligned() -> None:
    made = KVMemory().empty((3, 5, 2**15), torch.float16, CPU)
    assert made.shape == (3, 5, 2**15)
    assert made.dtype == torch.float16
    assert made.is_contiguous()
    assert made.data_ptr() % 64 == 0
    assert torch.equal(made.fill_(2), torch.full((3, 5, 2**15), 2, dtype=torch.float16))


@pytest.mark.parametrize("size", [SIZE, SIZE * 4 // 5 + 1])
def test_memory_of_an_ended_tensor_is_lent_again(size: int) -> None:
    memory = KVMemory()
    first = lent(memory)
    address = first.data_ptr()
    del first
    assert memory.kept_bytes == SIZE
    assert lent(memory, size).data_ptr() == address


def test_memory_is_kept_back_while_a_view_lives() -> None:
    memory = KVMemory()
    first = lent(memory)
    view = first[6:].view(5, -1).numpy()
    del first
    second = lent(memory)
    second.zero_()
    view[:] = 1
    assert not second.any()
    del view
    assert memory.kept_bytes == SIZE


def test_smallest_block_that_fits_is_lent() -> None:
    memory = KVMemory()
    large, small = lent(memory, SIZE + SIZE // 8), lent(memory)
    address = small.data_ptr()
    del large, small
    assert lent(memory).data_ptr() == address


@pytest.mark.parametrize("size", [SIZE + 1, SIZE // 2])
def test_lent_and_kept_memory_is_no_more_than_was_lent_at_once(size: int) -> None:
    memory = KVMemory()
    held = [lent(memory) for _ in range(4)]
    held.clear()
    held = [lent(memory, size) for _ in range(3)]  # fits none that is kept
    assert sum(one.nbytes for one in held) + memory.kept_bytes <= 4 * SIZE
    assert memory.kept_bytes >= SIZE * (0 if size > SIZE else 2)


def test_kept_memory_is_freed() -> None:
    memory = KVMemory()
    first, second = lent(memory), lent(memory)
    del first
    memory.clear()
    assert memory.kept_bytes == 0
    del second
    assert memory.kept_bytes == SIZE


def test_small_tensors_are_not_kept() -> None:
    memory = KVMemory()
    small = lent(memory, SMALLEST - 1)
    del small
    assert memory.kept_bytes == 0


def test_forked_cache_keeps_its_prompt() -> None:
    """The prompt is memory of another cache, which has ended."""
    memory = KVMemory()
    prompt = KVCache.allocate([2], 1, 2**13, 32, memory)
    prompt.own.fill_(3)
    prompt.length = 2**13
    fork = prompt.fork(4, 2**12)
    del prompt
    gc.collect()
    other = KVCache.allocate([2], 1, 2**13, 32, memory)
    other.own.fill_(7)
    assert fork.prefix is not None
    assert (fork.prefix == 3).all()


def test_tensors_may_start_and_end_in_several_threads() -> None:
    memory, wrong = KVMemory(), []

    def use(number: int) -> None:
        for turn in range(50):
            one = lent(memory, SIZE // 8 + number)
            one.fill_(number)
            if not (one == number).all():
                wrong.append((number, turn))

    threads = [threading.Thread(target=use, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert memory.kept_bytes <= 16 * (SIZE // 8 + 8)  # two a thread while one replaces another
