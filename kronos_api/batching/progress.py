"""Measures what the engine does with the running forecasts, from their sequences alone."""

from __future__ import annotations

from collections.abc import Sequence as Several
from typing import TYPE_CHECKING, Final

from kronos_api.telemetry.metrics import metrics

if TYPE_CHECKING:
    from kronos_api.batching.ticket import Ticket

TOKENS_A_CANDLE: Final = 2
"""s1 and s2."""


def note_step(active: Several[Ticket]) -> None:
    """After a step: record the phases that began in it and the candles that it decoded."""
    rows = decoded = 0
    for ticket in active:
        sequence = ticket.sequence
        if sequence is None:
            continue
        for status, at in sequence.entered:
            ticket.phases.enter(status.value, at)
        sequence.entered.clear()
        candles = sequence.decoded * sequence.sample_count
        if candles > ticket.candles:
            rows += sequence.sample_count
            decoded += candles - ticket.candles
            ticket.candles = candles
    if decoded:
        metrics.decode_batch_size.observe(rows)
        metrics.candles_decoded.inc(decoded)
        metrics.decode_tokens.inc(TOKENS_A_CANDLE * decoded)
