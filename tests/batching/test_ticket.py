"""Tickets: the outcome reaches the future once, as a sequence or as the caller's error."""

from __future__ import annotations

import numpy as np
import pytest

from kronos_api.batching.ticket import Ticket, caller_error
from kronos_api.errors import InternalError, QueueFull, WorkTooLarge
from kronos_api.telemetry.metrics import metrics
from tests.batching.simulation import request
from tests.fakes import FakeSequence


def running() -> tuple[Ticket, FakeSequence]:
    """A ticket accepted at 1 s whose inference started at 3 s."""
    ticket = Ticket(request(2), accepted_at=1.0, deadline=60.0, inference_timeout=30.0)
    sequence = FakeSequence(ticket.request, ticket.counts, steps=2)
    ticket.started_at, ticket.sequence = 3.0, sequence
    return ticket, sequence


def test_finish_releases_the_kv_cache_and_hands_over_the_sequence() -> None:
    ticket, sequence = running()
    sequence.values = np.zeros((1, 2, 6), np.float32)
    ticket.finish(7.0)
    assert sequence.released
    assert ticket.future.result(0) is sequence
    assert (ticket.queue_seconds, ticket.inference_seconds) == (2.0, 4.0)


def test_failed_sequence_becomes_an_error() -> None:
    ticket, sequence = running()
    sequence.failure = ValueError("shape mismatch in layer 3")
    ticket.finish(7.0)
    assert sequence.released
    assert isinstance(ticket.future.exception(0), InternalError)


def test_cancelled_future_gets_no_outcome_and_counts_no_failure() -> None:
    ticket, sequence = running()
    failures = metrics.engine_failures._value.get()
    assert ticket.future.cancel()
    ticket.fail(ValueError("too late"), 7.0)
    assert sequence.released
    assert ticket.future.cancelled()
    assert metrics.engine_failures._value.get() == failures


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (RuntimeError("shape mismatch in layer 3"), InternalError),
        (RuntimeError("CUDA out of memory. Tried to allocate"), QueueFull),
        (MemoryError(), QueueFull),
    ],
)
def test_unexpected_failures_are_counted_and_keep_their_details(
    failure: Exception, error: type[Exception]
) -> None:
    failures = metrics.engine_failures._value.get()
    found = caller_error(failure)
    assert isinstance(found, error)
    assert "layer" not in found.message
    assert "Tried" not in found.message
    assert metrics.engine_failures._value.get() == failures + 1


def test_errors_of_the_contract_pass_unchanged() -> None:
    error = WorkTooLarge("too large")
    assert caller_error(error) is error
