"""The engine on a GPU, where there is one: `pytest tests/engine/test_gpu.py` there."""

from __future__ import annotations

import pytest
import torch

from kronos_api.engine.build import build_engine
from kronos_api.engine.engine import Engine
from tests.engine.conftest import mixed_requests, together
from tests.oracle import MakeOracle, walk

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU")


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def on_gpu(oracles: MakeOracle, request: pytest.FixtureRequest) -> Engine:
    sources = oracles("tiny").sources
    return build_engine(*sources, device="cuda", dtype=request.param, max_context=64)


def test_seeded_forecast_has_the_same_tokens_alone_and_in_a_batch(on_gpu: Engine) -> None:
    requests = mixed_requests()
    alone = [on_gpu.run(request) for request in requests]
    for one, shared in zip(alone, together(on_gpu, requests), strict=True):
        assert torch.equal(one.s1, shared.s1)
        assert torch.equal(one.s2, shared.s2)


def test_greedy_tokens_equal_those_of_the_cpu(oracles: MakeOracle, tiny: Engine) -> None:
    sources = oracles("tiny").sources
    engine = build_engine(*sources, device="cuda", dtype="float32", max_context=64)
    for history in (9, 30, 64):
        request = walk(history).request(40)
        found, expected = engine.run(request), tiny.run(request)
        assert torch.equal(found.s1.cpu(), expected.s1)
        assert torch.equal(found.s2.cpu(), expected.s2)
