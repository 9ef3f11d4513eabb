"""Refusals of new forecasts, by the state of the engine."""

from __future__ import annotations

from typing import Final, Literal

from kronos_api.errors import KronosError, ModelNotReady, ShuttingDown

State = Literal["loading", "ready", "stalled", "draining", "failed"]

SHORTEST_STALL: Final = 10.0
"""Seconds that one step of the engine may take, however short KRONOS_INFERENCE_TIMEOUT is."""


def not_ready(state: State, stall: float) -> KronosError:
    """The refusal of a new forecast in `state`; `stalled` after `stall` seconds of a step."""
    match state:
        case "loading":
            return ModelNotReady(
                "The model is still loading. Retry in 1 s, or wait until /v1/readyz responds"
                " with 200; KRONOS_STARTUP_TIMEOUT limits how long loading takes.",
                retry_after=1,
            )
        case "failed":
            return ModelNotReady(
                "The model could not be loaded; the log has the reason. Correct"
                " KRONOS_MODEL_ID, KRONOS_MODEL_PATH or KRONOS_DEVICE (`kronos-api check` tests"
                " them) and restart the service.",
                retry_after=30,
            )
        case "stalled":
            return ModelNotReady(
                f"The engine makes no progress: its step has taken longer than"
                f" {stall:g} s, the larger of KRONOS_INFERENCE_TIMEOUT and"
                f" {SHORTEST_STALL:g} s. Retry in 5 s; restart the service if it persists.",
                retry_after=5,
            )
        case _:
            return shutting_down()


def shutting_down() -> ShuttingDown:
    """The refusal of a new forecast while accepted ones are finished."""
    return ShuttingDown(
        "The service is shutting down and accepts no new forecasts. Retry in 1 s: another replica,"
        " or this one after its restart, will respond.",
        retry_after=1,
    )


def drained_by_operator() -> ShuttingDown:
    """The refusal of a new forecast by a replica that an operator has drained."""
    return ShuttingDown(
        "The operator has drained this replica, which accepts no new forecasts. Retry in 1 s:"
        " another replica will respond. `kronos-api drain --undo` ends it.",
        retry_after=1,
    )
