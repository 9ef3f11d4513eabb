"""Answers say what a caller should know of them."""

from __future__ import annotations

from collections.abc import Sequence as Several
from typing import Any

import pytest

from kronos_api.engine.sequence import Sequence
from kronos_api.schemas.responses import PredictResponse
from tests.fakes import SleepyEngine
from tests.web import SINGLE, body, candles, serving, stamps


async def answer(engine: SleepyEngine | None = None, **changes: Any) -> PredictResponse:
    async with serving(engine) as client:
        response = await client.post(SINGLE, json=body(60, **changes))
    assert response.status_code == 200, response.text
    return PredictResponse.model_validate_json(response.content)


def codes(response: PredictResponse) -> set[str]:
    return {warning.code.value for warning in response.warnings} - {"DEMO_MODEL"}


def scaled(factor: float) -> list[dict[str, float]]:
    return [
        candle | {name: candle[name] * factor for name in ("open", "high", "low", "close")}
        for candle in candles(60)
    ]


async def test_a_plain_forecast_has_none() -> None:
    assert codes(await answer()) == set()


async def test_small_prices_are_scaled() -> None:
    assert codes(await answer(candles=scaled(1e-7))) == {"SCALED"}


async def test_quantiles_draw_thirty_paths_unless_told_otherwise() -> None:
    response = await answer(quantile_levels=[0.1, 0.9], return_samples=True)
    assert response.samples is not None
    assert len(response.samples) == 30
    assert codes(response) == set()
    few = {"sample_count": 5}
    assert codes(await answer(quantile_levels=[0.1], overrides=few)) == {"FEW_PATHS"}


async def test_summary_draws_thirty_paths_and_names_cut_tails() -> None:
    levels = [90.0, 110.5]
    response = await answer(summary=True, levels=levels, return_samples=True)
    assert response.samples is not None
    assert len(response.samples) == 30
    assert response.summary is not None
    assert [touch.level for touch in response.summary.p_touch] == levels
    last = candles(60)[-1]["close"]
    ups = [path.close[0] > last for path in response.samples]
    assert response.summary.p_up[0] == pytest.approx(sum(ups) / 30)
    assert codes(response) == {"TAILS_CUT"}
    whole = {"top_p": 1.0, "sample_count": 9}
    assert codes(await answer(summary=True, overrides=whole)) == {"FEW_PATHS"}


async def test_summary_of_a_crash_is_finite() -> None:
    response = await answer(Crash(), summary=True, repair=False)
    assert response.summary is not None
    assert response.summary.es_95 > 0.99
    assert "PRICE_FLOORED" in codes(response)


async def test_future_timestamps_that_are_no_steps() -> None:
    after = ["2026-01-01T00:05:00Z", "2026-01-01T00:14:00Z", "2026-01-01T00:34:00Z"]
    irregular = await answer(horizon=None, prediction_timestamps=after)
    assert codes(irregular) == {"IRREGULAR_TIMESTAMPS"}
    regular = await answer(horizon=None, prediction_timestamps=stamps(70)[60:])
    assert codes(regular) == set()


async def test_order_is_judged_in_float32() -> None:
    listed = candles(60)
    listed[3]["high"] = max(listed[3].values()) - 1e-9 * listed[3]["open"]
    listed[3]["open"] = listed[3]["close"] = listed[3]["high"] + 1e-10 * listed[3]["open"]
    assert codes(await answer(candles=listed)) == set()


async def test_small_violations_are_mended_on_request() -> None:
    listed = candles(60)
    listed[7]["low"] = min(listed[7]["open"], listed[7]["close"]) * 1.0005
    async with serving() as client:
        refused = await client.post(SINGLE, json=body(60, candles=listed))
    assert refused.json()["error"]["details"][0]["field"] == "candles.low"
    mended = await answer(candles=listed, repair_input=True)
    assert codes(mended) == {"INPUT_REPAIRED"}
    listed[7]["low"] = min(listed[7]["open"], listed[7]["close"]) * 1.01
    async with serving() as client:
        refused = await client.post(SINGLE, json=body(60, candles=listed, repair_input=True))
    assert refused.status_code == 400


class Crash(SleepyEngine):
    """Forecasts of a million deviations below the mean."""

    def step(self, sequences: Several[Sequence]) -> None:
        super().step(sequences)
        for run in sequences:
            if run.values is not None:
                run.values[:] = -1e6


@pytest.mark.parametrize("factor", [1.0, 1e-7])
async def test_no_price_is_zero_or_below_after_a_crash(factor: float) -> None:
    response = await answer(
        Crash(), candles=scaled(factor), quantile_levels=[0.05], return_samples=True
    )
    assert response.samples is not None
    assert response.quantiles is not None
    prices = [
        *(getattr(candle, name) for candle in response.prediction for name in ("open", "low")),
        *response.samples[0].low,
        *response.quantiles["0.05"].close,
    ]
    assert min(prices) > 0
    assert "PRICE_FLOORED" in codes(response)
    assert response.repaired > 0
