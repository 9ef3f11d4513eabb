"""The transformer layers laid out for decoding, against the plain modules."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from kronos_api.engine.kv_cache import Memory
from kronos_api.engine.transformer import Stack, norm_weight, shorten
from kronos_api.model.layers import Block, RMSNorm

WIDTH, LAYERS, POSITIONS = 32, 2, 24


@pytest.fixture(scope="module")
def blocks() -> nn.ModuleList:
    torch.manual_seed(0)
    made = nn.ModuleList(Block(WIDTH, 4, 48, 0.0, 0.0, 0.0) for _ in range(LAYERS)).eval()
    for norm in made.modules():
        if isinstance(norm, RMSNorm):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
    return made


@pytest.fixture
def stack(blocks: nn.ModuleList) -> Iterator[Stack]:
    with torch.inference_mode():
        yield Stack(blocks, POSITIONS, torch.empty(0), steps=True)


def numbers(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def empty(stack: Stack, paths: int, capacity: int = POSITIONS) -> Memory:
    return Memory.allocate([stack.heads] * LAYERS, paths, capacity, WIDTH, torch.empty(0))


def plain(blocks: nn.ModuleList, x: Tensor) -> Tensor:
    for block in blocks:
        x = block(x)
    return x


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_norm_is_split_into_a_part_by_row_and_a_part_in_the_weights(scale: float) -> None:
    norm = RMSNorm(WIDTH)
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    x = numbers(7, WIDTH) * scale
    close(shorten(x) * norm_weight(norm), norm(x))


@pytest.mark.parametrize("chunks", [[24], [1] * 24, [7, 1, 16]])
def test_extending_in_chunks_equals_the_plain_layers(
    blocks: nn.ModuleList, stack: Stack, chunks: list[int]
) -> None:
    x, memory, parts = numbers(3, POSITIONS, WIDTH), empty(stack, 3), []
    for part in x.split(chunks, dim=1):
        parts.append(stack.extend(part, memory))
        memory.length += part.shape[1]
    close(torch.cat(parts, dim=1), plain(blocks, x))


def test_steps_equal_the_plain_layers(blocks: nn.ModuleList, stack: Stack) -> None:
    x, memory = numbers(2, POSITIONS, WIDTH), empty(stack, 2)
    stack.extend(x[:, :20], memory)
    memory.length += 20
    for at in range(20, POSITIONS):
        found = stack.step(x[:, at], [memory])
        memory.length += 1
        close(found, plain(blocks, x[:, : at + 1])[:, -1])


def test_steps_over_a_shared_prompt_equal_the_plain_layers(
    blocks: nn.ModuleList, stack: Stack
) -> None:
    prompt, own = numbers(1, 15, WIDTH), numbers(3, 4, WIDTH, seed=2)
    memory = empty(stack, 1)
    stack.extend(prompt, memory)
    memory.length += 15
    fork = memory.fork(3, 4)
    whole = torch.cat([prompt.expand(3, -1, -1), own], dim=1)
    for at in range(4):
        found = stack.step(own[:, at], [fork])
        fork.length += 1
        close(found, plain(blocks, whole[:, : 15 + at + 1])[:, -1])


def test_rows_of_several_caches_have_the_bits_they_have_alone(stack: Stack) -> None:
    """Forecasts of different lengths and numbers of paths in one decode step."""
    memories, rows = [], []
    for number, (paths, length) in enumerate([(1, 3), (4, 20), (2, 0), (1, 11)]):
        memory = empty(stack, paths)
        if length:
            stack.extend(numbers(paths, length, WIDTH, seed=number), memory)
            memory.length += length
        memories.append(memory)
        rows.append(numbers(paths, WIDTH, seed=10 + number))
    alone = [stack.step(x, [memory]) for x, memory in zip(rows, memories, strict=True)]
    assert torch.equal(stack.step(torch.cat(rows), memories), torch.cat(alone))
