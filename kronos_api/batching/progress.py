"""Measures what the engine does with the running forecasts, from their sequences alone."""

from __future__ import annotations

from collections.abc import Sequence as Several
from typing import TYPE_CHECKING, Final

from kronos_api.engine.sequence import SequenceStatus
from kronos_api.telemetry.metrics import metrics

if TYPE_CHECKING:
    from kronos_api.batching.ticket import Ticket

TOKENS_A_CANDLE: Final = 2
"""s1 and s2."""


def note_batch(active: Several[Ticket]) -> None:
    """Before a step: record the sample paths that will share its decode step."""
    rows = sum(
        ticket.sequence.sample_count
        for ticket in active
        if ticket.sequence is not None and ticket.sequence.status is SequenceStatus.DECODE
    )
    if rows:
        metrics.decode_batch_size.observe(rows)


def note_step(active: Several[Ticket], now: float) -> None:
    """After a step: record the phases that it ended and the candles that it decoded."""
    decoded = 0
    for ticket in active:
        sequence = ticket.sequence
        if sequence is None:
            continue
        if not sequence.ended:
            ticket.phases.enter(sequence.status.value, now)
        candles = sequence.decoded * sequence.sample_count
        decoded += candles - ticket.candles
        ticket.candles = candles
    if decoded:
        metrics.candles_decoded.inc(decoded)
        metrics.decode_tokens.inc(TOKENS_A_CANDLE * decoded)
