"""The compiled kernels against the plain ones, row by row and in batches."""

from __future__ import annotations

import hashlib
import inspect
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from kronos_api.engine.int8 import Int8Linear
from kronos_api.engine.kernels import choose_kernels, loops
from kronos_api.engine.kernels.compiled import CompiledKernels
from kronos_api.engine.kernels.plain import PlainKernels
from kronos_api.engine.kernels.quantised import ZERO_POINT, QuantisedRows
from kronos_api.engine.kv_cache import KVCache
from kronos_api.engine.kv_memory import KVMemory
from kronos_api.model.layers import NORM_EPSILON

BOTH = [PlainKernels(), CompiledKernels()]
WIDTH, HEADS, LENGTH = 96, 3, 37
SIZES = (*range(1, 18), 31, 64, 400)


def numbers(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def cache(rows: int, seed: int, prompt: int = 0) -> KVCache:
    """A cache of `LENGTH` random positions a row, behind a prompt that the rows share."""
    made = KVCache.allocate([HEADS], 1 if prompt else rows, prompt or LENGTH + 2, WIDTH, KVMemory())
    if prompt:
        made.own.copy_(numbers(*made.own.shape, seed=seed))
        made.length = prompt
        made = made.fork(rows, LENGTH + 2)
    made.own.copy_(numbers(*made.own.shape, seed=seed + 1))
    made.length = LENGTH
    return made


def quantised(kernels: PlainKernels, operation: str, x: Tensor) -> QuantisedRows:
    rows = getattr(kernels, operation)(x.clone())
    assert isinstance(rows, QuantisedRows)
    return rows


def attended(
    kernels: PlainKernels, query: Tensor, caches: list[KVCache], q_len: int, stored: int
) -> Tensor:
    mixed = torch.empty_like(query)
    kernels.attend(query, 0, caches, q_len, stored, mixed)
    return mixed


def decoded(rows: QuantisedRows) -> Tensor:
    return (rows.codes.float() - ZERO_POINT) * rows.scale


@pytest.mark.parametrize("kernels", BOTH, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_rms_norm_times_its_weight_equals_the_module(kernels: PlainKernels, scale: float) -> None:
    norm = nn.RMSNorm(WIDTH, eps=NORM_EPSILON)
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    x = numbers(7, WIDTH) * scale
    torch.testing.assert_close(kernels.rms_norm(x) * norm.weight.detach(), norm(x).detach())


@pytest.mark.parametrize(
    ("kernels", "dtype"),
    [
        (PlainKernels(), torch.float32),
        (PlainKernels(), torch.bfloat16),
        (CompiledKernels(), torch.float32),
    ],
    ids=lambda one: str(one).removeprefix("torch.").partition(" ")[0],
)
@pytest.mark.parametrize("width", [64, 128, 256, 512, 832])
def test_rms_norm_gives_a_row_the_same_bits_alone_and_in_a_batch(
    kernels: PlainKernels, dtype: torch.dtype, width: int
) -> None:
    x = numbers(400, width).to(dtype)
    alone = torch.cat([kernels.rms_norm(row) for row in x.split(1)])
    for size in range(1, 401):
        assert torch.equal(kernels.rms_norm(x[-size:]), alone[-size:]), size


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("kernels", BOTH, ids=lambda one: type(one).__name__)
def test_norm_of_a_row_that_is_not_finite_is_not_finite(kernels: PlainKernels, bad: float) -> None:
    x = numbers(3, WIDTH)
    expected = kernels.rms_norm(x)
    x[1, 5] = bad
    found = kernels.rms_norm(x)
    assert not found[1].isfinite().all()
    assert torch.equal(found[::2], expected[::2])


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("operation", ["quantise", "quantise_normed", "quantise_swiglu"])
def test_quantised_rows_are_near_the_rows(operation: str, scale: float) -> None:
    x = numbers(20, 2 * WIDTH) * scale
    expected = {
        "quantise": x,
        "quantise_normed": x * (x.square().mean(-1, keepdim=True) + 1e-5).rsqrt(),
        "quantise_swiglu": torch.nn.functional.silu(x[:, :WIDTH]) * x[:, WIDTH:],
    }[operation]
    for kernels in BOTH:
        rows = quantised(kernels, operation, x)
        step = expected.abs().amax(-1, keepdim=True) / 127
        assert ((decoded(rows) - expected).abs() <= 0.501 * step).all()


@pytest.mark.parametrize("kernels", BOTH, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("operation", ["quantise", "quantise_normed", "quantise_swiglu"])
def test_quantised_row_has_the_same_bits_alone_and_in_a_batch(
    kernels: PlainKernels, operation: str
) -> None:
    x = numbers(400, 2 * WIDTH)
    whole = quantised(kernels, operation, x)
    for size in SIZES:
        part = quantised(kernels, operation, x[-size:])
        assert torch.equal(part.codes, whole.codes[-size:])
        assert torch.equal(part.scale, whole.scale[-size:])


@pytest.mark.parametrize("kernels", BOTH, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("operation", ["quantise", "quantise_normed", "quantise_swiglu"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_row_that_is_not_finite_stays_so_and_leaves_the_others(
    kernels: PlainKernels, operation: str, bad: float
) -> None:
    x = numbers(3, 2 * WIDTH)
    linear = Int8Linear(numbers(8, x.shape[1] // (2 if "swiglu" in operation else 1)), None)
    expected = linear(quantised(kernels, operation, x))
    x[1, 5] = bad
    found = linear(quantised(kernels, operation, x))
    assert not found[1].isfinite().all()
    assert torch.equal(found[::2], expected[::2])


def test_rows_of_zeros_are_quantised_to_zeros() -> None:
    for kernels in BOTH:
        assert not decoded(quantised(kernels, "quantise", torch.zeros(2, WIDTH))).any()


def test_int8_linear_is_near_and_gives_a_row_the_same_bits_in_any_batch() -> None:
    weight, bias, x = numbers(160, WIDTH, seed=2), numbers(160, seed=3), numbers(400, WIDTH)
    linear, rows = Int8Linear(weight, bias), BOTH[0].quantise(x)
    whole, exact = linear(rows), x @ weight.T + bias
    assert (whole - exact).std() < 0.02 * exact.std()
    other = numbers(400, 160, seed=4)
    torch.testing.assert_close(linear.add(rows, other), whole + other, rtol=1e-5, atol=1e-5)
    for size in range(1, 401):
        part = QuantisedRows(rows.codes[-size:], rows.scale[-size:])
        assert torch.equal(linear(part), whole[-size:]), size


@pytest.mark.parametrize("prompt", [0, 21])
@pytest.mark.parametrize("stored", [0, 1])
def test_compiled_attention_of_one_query_equals_the_plain(prompt: int, stored: int) -> None:
    caches = [cache(2, 1, prompt), cache(1, 5), cache(3, 9, prompt)]
    query = numbers(6, WIDTH)
    plain, compiled = (attended(kernels, query, caches, 1, stored) for kernels in BOTH)
    torch.testing.assert_close(compiled, plain, rtol=1e-5, atol=1e-5)


def test_a_change_of_the_numbers_is_one_of_the_loops() -> None:
    """Else Numba would run the machine code of the version before."""
    source = Path(inspect.getfile(loops)).with_name("numbers.py").read_bytes()
    assert hashlib.sha256(source).hexdigest().startswith(loops.NUMBERS)


@pytest.mark.parametrize("rows", [1, 3])
def test_float16_cache_is_read_as_stored(rows: int) -> None:
    """Compiled RoPE and attention over float16 equal those over the same numbers in float32."""
    kernels, width = CompiledKernels(), WIDTH // HEADS
    angles = numbers(LENGTH + 2, width // 2)
    factors = kernels.rope(torch.polar(torch.ones_like(angles), angles), [], 1)
    half = KVCache.allocate([HEADS], rows, LENGTH + 2, WIDTH, KVMemory(), dtype=torch.float16)
    wide = KVCache.allocate([HEADS], rows, LENGTH + 2, WIDTH, KVMemory())
    half.own.copy_(numbers(*half.own.shape))
    wide.own.copy_(half.own)
    half.length = wide.length = LENGTH
    qkv = numbers(rows, 3 * WIDTH)
    queries = [kernels.rotate_and_store(qkv, factors, 0, [one], 1) for one in (half, wide)]
    assert torch.equal(*queries)
    assert torch.equal(half.own[:, :, :, LENGTH], wide.own[:, :, :, LENGTH].half())
    wide.own.copy_(half.own)
    mixed = [attended(kernels, queries[0], [one], 1, 1) for one in (half, wide)]
    torch.testing.assert_close(*mixed, rtol=1e-6, atol=1e-6)
    if rows == 1:
        query = numbers(LENGTH, WIDTH)
        mixed = [attended(kernels, query, [one], LENGTH, 0) for one in (half, wide)]
        assert torch.equal(*mixed)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("q_len", [1, 70])
def test_compiled_attention_of_a_query_that_is_not_finite_is_not_finite(
    q_len: int, bad: float
) -> None:
    made = KVCache.allocate([HEADS], 1, q_len + 5, WIDTH, KVMemory())
    made.own.copy_(numbers(*made.own.shape))
    made.length = 5
    query = numbers(q_len, WIDTH)
    query[-1, 3] = bad
    mixed = attended(CompiledKernels(), query, [made], q_len, q_len)
    assert not mixed[-1].isfinite().all()
    assert mixed[:-1].isfinite().all()


@pytest.mark.parametrize(("q_len", "length"), [(2, 0), (37, 0), (64, 0), (150, 0), (70, 30)])
@pytest.mark.parametrize("batch_size", [1, 2])
def test_compiled_attention_of_many_queries_equals_the_plain(
    q_len: int, length: int, batch_size: int
) -> None:
    made = KVCache.allocate([HEADS], batch_size, q_len + length, WIDTH, KVMemory())
    made.own.copy_(numbers(*made.own.shape))
    made.length = length
    query = numbers(batch_size * q_len, WIDTH, seed=2)
    plain, compiled = (attended(kernels, query, [made], q_len, q_len) for kernels in BOTH)
    torch.testing.assert_close(compiled, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("prompt", [0, 21])
@pytest.mark.parametrize("kernels", BOTH, ids=lambda one: type(one).__name__)
def test_attention_has_the_same_bits_alone_and_in_a_batch(
    kernels: PlainKernels, prompt: int
) -> None:
    caches = [cache(1 + index % 3, index, prompt) for index in range(20)]
    sizes = [one.batch_size for one in caches]
    query = numbers(sum(sizes), WIDTH)
    whole = attended(kernels, query, caches, 1, 1)
    alone = [
        attended(kernels, part, [one], 1, 1)
        for part, one in zip(query.split(sizes), caches, strict=True)
    ]
    assert torch.equal(torch.cat(alone), whole)


@pytest.mark.parametrize("q_len", [1, 2])
def test_compiled_rope_rotates_and_stores_as_the_plain(q_len: int) -> None:
    angles = torch.outer(torch.arange(64.0), numbers(WIDTH // HEADS // 2).abs())
    freqs_cis = torch.polar(torch.ones_like(angles), angles)
    qkv = numbers(3 * q_len, 3 * WIDTH)
    found = []
    for kernels in BOTH:
        caches = [cache(2, 1, 9), cache(1, 3)]
        factors = kernels.rope(freqs_cis, caches, q_len)
        found.append([kernels.rotate_and_store(qkv, factors, 0, caches, q_len)])
        found[-1] += [one.own for one in caches]
    for plain, compiled in zip(*found, strict=True):
        torch.testing.assert_close(compiled, plain, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kernels", BOTH, ids=lambda one: type(one).__name__)
def test_rope_has_the_same_bits_alone_and_in_a_batch(kernels: PlainKernels) -> None:
    angles = torch.outer(torch.arange(64.0), numbers(WIDTH // HEADS // 2).abs())
    freqs_cis = torch.polar(torch.ones_like(angles), angles)
    qkv = numbers(40, 3 * WIDTH)

    def rotated(rows: Tensor, caches: list[KVCache]) -> list[Tensor]:
        factors = kernels.rope(freqs_cis, caches, 1)
        query = kernels.rotate_and_store(rows, factors, 0, caches, 1)
        return [query, *(one.own for one in caches)]

    whole = rotated(qkv, [cache(1, 1) for _ in range(40)])
    for row in range(40):
        query, own = rotated(qkv[row : row + 1], [cache(1, 1)])
        assert torch.equal(query[0], whole[0][row])
        assert torch.equal(own, whole[1 + row])


@pytest.mark.parametrize("kernels", BOTH, ids=lambda one: type(one).__name__)
def test_storing_beyond_the_capacity_raises(kernels: PlainKernels) -> None:
    full, freqs_cis = cache(1, 1), torch.ones(64, 16, dtype=torch.complex64)
    factors = kernels.rope(freqs_cis, [full], 3)
    with pytest.raises(RuntimeError, match="holds 37 of 39 positions"):
        kernels.rotate_and_store(numbers(3, 3 * WIDTH), factors, 0, [full], 3)


def test_kernels_are_chosen_by_device_dtype_and_installation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert type(choose_kernels("cpu", torch.float32)) is CompiledKernels
    assert type(choose_kernels("cpu", torch.int8)) is CompiledKernels
    assert type(choose_kernels("cpu", torch.bfloat16)) is PlainKernels
    assert type(choose_kernels("cuda", torch.float32)) is PlainKernels
    monkeypatch.setattr("kronos_api.engine.kernels.find_spec", lambda _: None)
    assert type(choose_kernels("cpu", torch.float32)) is PlainKernels
