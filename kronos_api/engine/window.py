"""Which rows the model sees when history and horizon do not fit its context.

A forecast is decoded in segments: prefill a prompt, then decode candle after candle. While history
and horizon fit the context, there is one segment. Beyond it:

- `anchor` trims the history so that the window does not move, never below half a context; a full
  window is followed by a segment whose prompt is its last half;
- `exact` moves the window by one candle each step and prefills it again, as the published
  implementation does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

WindowPolicy = Literal["anchor", "exact"]


@dataclass(frozen=True, slots=True)
class Segment:
    """Prefill the last `prompt` candles (history or decoded), then decode `steps` candles."""

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
    """Windows in which decoded tokens are detokenized, in order.

    Under `exact` that is one window, the last `context` tokens. Where the horizon alone fills the
    context, such a window would hold no history, and the plan is that of `anchor`.
    """
    if policy == "exact" and horizon < context:
        return [Segment(min(history, context - horizon), horizon)]
    return plan_decoding(history, horizon, context, "anchor")


def _anchored(history: int, horizon: int, context: int) -> list[Segment]:
    half = context // 2
    prompt = min(history, max(context - horizon, half))
    segments = [Segment(prompt, min(horizon, context - prompt))]
    remaining = horizon - segments[0].steps
    while remaining:
        segments.append(Segment(half, min(remaining, context - half)))
        remaining -= segments[-1].steps
    return segments
