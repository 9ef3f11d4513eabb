"""Which rows the network sees when history and horizon do not fit its context.

A forecast is decoded in segments. A segment encodes a prompt, then appends one decoded candle
after another. While everything fits, there is one segment. When it does not:

- `anchor` trims the history so that the window need not move, never below half a context, and
  when the window is full starts a new segment from its last half;
- `exact` moves the window by one candle a step and encodes it afresh each time, as the published
  implementation does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

WindowPolicy = Literal["anchor", "exact"]


@dataclass(frozen=True, slots=True)
class Segment:
    """Encode the last `prompt` candles (known or decoded), then decode `steps` candles."""

    prompt: int
    steps: int


def plan_decoding(history: int, horizon: int, context: int, policy: WindowPolicy) -> list[Segment]:
    """Segments that decode `horizon` candles after `history` rows, in order."""
    if history + horizon <= context:
        return [Segment(history, horizon)]
    if policy == "anchor":
        return _anchored(history, horizon, context)
    prompt = min(history, context)
    first = min(horizon, context - prompt + 1)
    return [Segment(prompt, first)] + [Segment(context, 1)] * (horizon - first)


def plan_candles(history: int, horizon: int, context: int, policy: WindowPolicy) -> list[Segment]:
    """Windows in which decoded tokens become candles again, in order.

    Under `exact` it is the last `context` tokens at once. A horizon that fills the context has no
    such window with history in it; it is cut as under `anchor`.
    """
    if policy == "exact" and horizon < context:
        return [Segment(min(history, context - horizon), horizon)]
    return plan_decoding(history, horizon, context, "anchor")


def _anchored(history: int, horizon: int, context: int) -> list[Segment]:
    half = context // 2
    prompt = min(history, max(context - horizon, half))
    segments = [Segment(prompt, min(horizon, context - prompt))]
    left = horizon - segments[0].steps
    while left:
        segments.append(Segment(half, min(left, context - half)))
        left -= segments[-1].steps
    return segments
