"""Sampling has the distribution of the published implementation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from kronos_api.engine.engine import Engine
from kronos_api.engine.kernels.compiled import CompiledKernels
from kronos_api.engine.kernels.plain import PlainKernels
from kronos_api.engine.sampling import SamplingParams, SamplingTensors, sample, uniforms
from tests.engine.conftest import together
from tests.oracle import MakeOracle, walk

DRAWS = 4000
KERNELS = [PlainKernels(), CompiledKernels()]


def published(logits: Tensor, temperature: float, top_k: int, top_p: float) -> Tensor:
    """Probabilities that the published implementation samples from."""
    from model.kronos import top_k_top_p_filtering

    scaled = logits.clone().view(1, -1) / temperature
    if top_k > 0 or top_p < 1:
        scaled = top_k_top_p_filtering(scaled, top_k=top_k, top_p=top_p)
    return torch.softmax(scaled, dim=-1).view(-1)


def p_value(ids: Tensor, probabilities: Tensor) -> float:
    """Chi-square test of drawn `ids` against `probabilities`; 0 if an impossible one was drawn."""
    counts = np.bincount(ids.numpy(), minlength=len(probabilities)).astype(float)
    expected = probabilities.double().numpy() * len(ids)
    if counts[expected == 0].any():
        return 0.0
    # Rare tokens are counted together, so that every cell expects enough.
    order = np.argsort(-expected)
    cells = np.minimum(np.cumsum(expected[order]) // 20, len(ids) // 20 - 1).astype(int)
    observed = np.bincount(cells, counts[order])
    wanted = np.bincount(cells, expected[order])
    kept = wanted > 0
    observed, wanted = observed[kept], wanted[kept] * observed.sum() / wanted[kept].sum()
    return float(stats.chisquare(observed, wanted).pvalue)


def draw(logits: Tensor, temperature: float, top_k: int, top_p: float) -> Tensor:
    params = SamplingTensors.of(SamplingParams(temperature, top_k, top_p, DRAWS))
    uniform = torch.from_numpy(uniforms(7, 1, DRAWS)).view(-1)
    plain, compiled = (
        sample(logits.expand(DRAWS, -1), params, uniform, kernels.draw) for kernels in KERNELS
    )
    assert torch.equal(plain, compiled)
    return plain


@pytest.fixture
def logits() -> Tensor:
    return torch.randn(64, generator=torch.Generator().manual_seed(3)) * 1.5


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [(1.0, 0, 1.0), (0.7, 0, 1.0), (1.0, 0, 0.9), (1.5, 0, 0.5), (1.0, 10, 1.0), (0.5, 3, 1.0)],
)
def test_distribution(logits: Tensor, temperature: float, top_k: int, top_p: float) -> None:
    ids = draw(logits, temperature, top_k, top_p)
    assert p_value(ids, published(logits, temperature, top_k, top_p)) > 1e-3


@pytest.mark.parametrize("top_p", [0.85, 0.95])
def test_a_top_p_off_by_a_twentieth_is_noticed(logits: Tensor, top_p: float) -> None:
    assert p_value(draw(logits, 1.0, 0, top_p), published(logits, 1.0, 0, 0.9)) < 1e-6


def test_top_k_comes_before_top_p(logits: Tensor) -> None:
    """top_p applies to the tokens that top_k keeps, renormalised; upstream skips it there."""
    after_top_k = published(logits, 1.0, 10, 1.0)
    expected = published(after_top_k.log(), 1.0, 0, 0.6)
    assert 1 < int((expected > 0).sum()) < 10
    assert p_value(draw(logits, 1.0, 10, 0.6), expected) > 1e-3


@pytest.mark.parametrize(
    ("params", "greedy"),
    [
        (SamplingParams(), False),
        (SamplingParams(temperature=0), True),
        (SamplingParams(top_k=1), True),
        (SamplingParams(top_k=2, top_p=0.1), False),
    ],
)
def test_zero_temperature_and_one_token_are_greedy(params: SamplingParams, greedy: bool) -> None:
    assert params.greedy is greedy


@pytest.mark.parametrize(("temperature", "top_k"), [(0.0, 0), (1.0, 1)])
def test_greedy(logits: Tensor, temperature: float, top_k: int) -> None:
    assert set(draw(logits, temperature, top_k, 0.9).tolist()) == {int(logits.argmax())}


@pytest.mark.parametrize("spread", [0.0, 0.1, 1.0, 30.0])
def test_compiled_kernels_draw_the_tokens_of_the_plain_ones(spread: float) -> None:
    """In one batch of all kinds of rows, at numbers of every size."""
    kinds = [
        SamplingParams(temperature, top_k, top_p)
        for temperature in (0.0, 0.3, 1.0, 2.0)
        for top_k in (0, 1, 2, 50, 1024, 5000)
        for top_p in (1e-6, 0.5, 0.9, 0.999999, 1.0)
    ]
    sampling = SamplingTensors.join([SamplingTensors.of(kind) for kind in kinds])
    numbers = torch.Generator().manual_seed(5)
    rows = torch.randn(len(kinds), 1024, generator=numbers) * spread
    for uniform in (0.0, 1e-9, 0.1, 0.5, 0.9, 1 - 1e-9, 1 - 2**-53):
        every = torch.full((len(kinds), 2), uniform, dtype=torch.float64)[:, 1]
        plain, compiled = (sample(rows, sampling, every, kernels.draw) for kernels in KERNELS)
        assert torch.equal(plain, compiled), uniform


@pytest.mark.parametrize("kernels", KERNELS, ids=lambda one: type(one).__name__)
def test_rows_keep_their_own_parameters(logits: Tensor, kernels: PlainKernels) -> None:
    """Each row of a mixed batch is drawn as it is alone."""
    kinds = [(1.0, 0, 0.9), (0.0, 0, 1.0), (0.7, 5, 1.0), (2.0, 0, 1.0), (1.0, 4, 0.5)]
    rows = torch.stack([logits.roll(shift) for shift in range(len(kinds))])
    uniform = torch.linspace(0.05, 0.95, len(kinds), dtype=torch.float64)
    parts = [SamplingTensors.of(SamplingParams(*kind)) for kind in kinds]
    together = sample(rows, SamplingTensors.join(parts), uniform, kernels.draw)
    for row, part in enumerate(parts):
        number = uniform[row : row + 1]
        assert together[row] == sample(rows[row : row + 1], part, number, kernels.draw)[0]


@pytest.mark.parametrize("kernels", KERNELS, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-53])
def test_extreme_numbers_draw_possible_tokens(
    logits: Tensor, uniform: float, kernels: PlainKernels
) -> None:
    params = SamplingTensors.of(SamplingParams(top_k=3))
    number = torch.tensor([uniform], dtype=torch.float64)
    token = int(sample(logits.view(1, -1), params, number, kernels.draw))
    assert token in logits.topk(3).indices.tolist()


def test_streams_depend_on_seed_and_path_alone() -> None:
    many, few = uniforms(5, 8, 20), uniforms(5, 3, 20)
    np.testing.assert_array_equal(many[:3], few)
    assert len(np.unique(many)) == many.size
    assert not np.array_equal(few, uniforms(6, 3, 20))
    np.testing.assert_array_equal(uniforms(2**53 - 1, 1, 4), uniforms(2**53 - 1, 1, 4))
    assert many.min() >= 0
    assert many.max() < 1


@pytest.mark.parametrize("top_p", [0.85, 0.9, 0.95])
def test_engine_samples_the_published_distribution(
    oracles: MakeOracle, tiny: Engine, top_p: float
) -> None:
    """First tokens of many paths, decoded with 32 batch-mates, against the published logits."""
    oracle = oracles("tiny")
    request = walk(30).request(1, top_k=0, top_p=top_p, sample_count=DRAWS, temperature=0.3)
    others = [walk(5 + n, seed=n).request(3, top_k=0, sample_count=2, seed=n) for n in range(32)]
    run = together(tiny, [*others[:16], request, *others[16:]])[16]
    with torch.no_grad():
        features = torch.from_numpy(request.history_time_features).float().unsqueeze(0)
        logits, _ = oracle.model.decode_s1(run.s1[:1, :30], run.s2[:1, :30], features)
    p = p_value(run.s1[:, 30], published(logits[0, -1], 0.3, 0, 0.9))
    assert p > 1e-3 if top_p == 0.9 else p < 1e-6
