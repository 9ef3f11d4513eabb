from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kronos_api.engine.window import Segment, WindowPolicy, plan_candles, plan_decoding

POLICIES = st.sampled_from(["anchor", "exact"])


@pytest.mark.parametrize("policy", ["anchor", "exact"])
def test_one_segment_inside_the_context(policy: WindowPolicy) -> None:
    assert plan_decoding(400, 112, 512, policy) == [Segment(400, 112)]
    assert plan_candles(400, 112, 512, policy) == [Segment(400, 112)]


def test_anchor_trims_history_until_the_horizon_fits() -> None:
    assert plan_decoding(512, 100, 512, "anchor") == [Segment(412, 100)]
    assert plan_decoding(2048, 256, 512, "anchor") == [Segment(256, 256)]


def test_anchor_keeps_half_a_context_and_starts_again_from_the_last_half() -> None:
    assert plan_decoding(400, 512, 512, "anchor") == [Segment(256, 256), Segment(256, 256)]
    assert plan_decoding(100, 500, 512, "anchor") == [Segment(100, 412), Segment(256, 88)]


def test_exact_moves_the_window_by_one() -> None:
    assert plan_decoding(510, 5, 512, "exact") == [Segment(510, 3)] + [Segment(512, 1)] * 2
    assert plan_decoding(600, 3, 512, "exact") == [Segment(512, 1)] * 3
    assert plan_candles(600, 3, 512, "exact") == [Segment(509, 3)]


@given(st.integers(1, 2048), st.integers(1, 512), st.integers(2, 600), POLICIES)
def test_plans_cover_the_horizon_within_the_context(
    history: int, horizon: int, context: int, policy: WindowPolicy
) -> None:
    for plan, spare in ((plan_decoding, 1), (plan_candles, 0)):
        segments = plan(history, horizon, context, policy)
        assert sum(segment.steps for segment in segments) == horizon
        known = history
        for segment in segments:
            assert 1 <= segment.prompt <= min(known, context)
            assert segment.steps >= 1
            # The candle decoded last is not seen again, so exact steps may end one past the window.
            assert segment.prompt + segment.steps <= context + (spare if policy == "exact" else 0)
            known += segment.steps
