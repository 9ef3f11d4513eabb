"""bfloat16, int8, and the operators for devices without oneDNN: near float32, and repeatable."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kronos_api.engine import attention, linear, transformer
from kronos_api.engine.build import build_engine
from kronos_api.engine.engine import Engine
from kronos_api.engine.int8 import Int8Linear, int8_problem
from kronos_api.engine.kernels.plain import PlainKernels
from kronos_api.engine.kernels.quantised import QuantisedRows
from tests.engine.conftest import mixed_requests
from tests.engine.test_engine import assert_same_bytes
from tests.engine.test_streaming import run
from tests.oracle import MakeOracle, walk


@pytest.fixture(scope="module", params=["bfloat16", "int8"])
def narrow(request: pytest.FixtureRequest, oracles: MakeOracle) -> Engine:
    """The tiny model in a narrow type."""
    dtype = request.param
    engine = build_engine(*oracles("tiny").sources, max_context=64, dtype=dtype, torch_threads=1)
    if engine.info.dtype_warning:
        pytest.skip(engine.info.dtype_warning)
    assert engine.info.dtype == dtype
    return engine


def test_narrow_types_are_near_float32_and_repeat_their_bytes(narrow: Engine, tiny: Engine) -> None:
    request = walk(40).request(12, top_k=0, sample_count=200, temperature=0.5, seed=3)
    exact, rough = tiny.run(request).values, narrow.run(request).values
    assert exact is not None
    assert rough is not None
    spread = exact.std(axis=0).mean()
    assert np.abs(exact.mean(axis=0) - rough.mean(axis=0)).mean() < spread / 4
    again = narrow.run(request).values
    assert again is not None
    assert again.tobytes() == rough.tobytes()


@pytest.mark.parametrize("paths", [1, 3])
def test_plain_operators_decode_the_same_tokens(
    oracles: MakeOracle, tiny: Engine, monkeypatch: pytest.MonkeyPatch, paths: int
) -> None:
    """What runs on a GPU: no packed weights, and attention by ordinary operators."""
    monkeypatch.setattr(linear, "OneDNNLinear", linear.PlainLinear)
    monkeypatch.setattr(linear, "MKLLinear", linear.PlainLinear)
    monkeypatch.setattr(attention, "attention_lse", plainly)
    monkeypatch.setattr(transformer, "choose_kernels", lambda *_: PlainKernels())
    plain = build_engine(*oracles("tiny").sources, max_context=64, torch_threads=1)
    request = walk(40).request(60, top_k=0, top_p=0.9, sample_count=paths, seed=8)
    packed, other = tiny.run(request), plain.run(request)
    assert torch.equal(packed.s1, other.s1)
    assert torch.equal(packed.s2, other.s2)
    assert packed.values is not None
    assert other.values is not None
    np.testing.assert_allclose(packed.values, other.values, rtol=1e-4, atol=1e-5)


def plainly(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, causal: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    mixed, norm = attention._plain_attention_lse(query.transpose(1, 2), keys, values, causal)
    return mixed.transpose(1, 2).contiguous(), norm.transpose(1, 2)


def test_narrow_types_are_batch_invariant(narrow: Engine) -> None:
    requests = mixed_requests()
    together = [narrow.start(request) for request in requests]
    while pending := [one for one in together if not one.ended]:
        narrow.step(pending)
    for one, request in zip(together, requests, strict=True):
        assert_same_bytes(one, narrow.run(request))


def test_streamed_candles_are_near_those_of_the_forecast(narrow: Engine) -> None:
    """In int8, a rounding of the decoder may change how a number is quantised."""
    request = walk(30).request(20, sample_count=3, top_p=0.9, seed=3)
    ((values, *parts),) = run(narrow, [request], streams=1)
    sent = np.concatenate(parts, axis=1)
    np.testing.assert_allclose(sent, values[:, : sent.shape[1]], rtol=0, atol=0.01)


def test_int8_falls_back_to_float32_and_says_why(
    oracles: MakeOracle, tiny: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def saturating(linear: Int8Linear, rows: QuantisedRows) -> torch.Tensor:
        return multiply(linear, rows).clamp(max=32_767)

    multiply = Int8Linear.__call__
    monkeypatch.setattr(Int8Linear, "__call__", saturating)
    engine = build_engine(*oracles("tiny").sources, max_context=64, dtype="int8", torch_threads=1)
    assert engine.info.dtype == "float32"
    assert engine.info.dtype_warning == "this processor's int8 kernel saturates"
    request = walk(40).request(3, seed=1)
    assert_same_bytes(engine.run(request), tiny.run(request))


def test_int8_is_for_cpus() -> None:
    assert int8_problem(torch.device("cuda:1")) is not None
