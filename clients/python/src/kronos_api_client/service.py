"""What the service says about itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypedDict

from kronos_api_client.errors import KronosError
from kronos_api_client.messages import Answer, Request

MODELS = Request("GET", "/v1/models")
CALENDARS = Request("GET", "/v1/calendars")
HEALTH = Request("GET", "/v1/healthz/detailed")
READY = Request("GET", "/v1/readyz", accepted=(200, 503))


class Part(TypedDict):
    """One checkpoint that is loaded; `sha256` is that of its weights."""

    id: str
    revision: str | None
    sha256: str
    parameters: int


class Models(TypedDict):
    """The checkpoints that are loaded, and where. `context_length` is in candles."""

    model: Part
    tokenizer: Part
    context_length: int
    dtype: str
    device: str
    device_warning: str | None
    demo: bool


class TradingHours(TypedDict):
    """Hours of a usual session, in the time zone of the calendar; breaks are None without one."""

    open: str
    close: str
    opens_day_before: bool
    break_start: str | None
    break_end: str | None


class Calendar(TypedDict):
    """A calendar that a forecast may name by its code or an alias."""

    code: str
    aliases: list[str]
    name: str
    country: str
    time_zone: str
    hours: TradingHours


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether the service accepts forecasts: true as a condition if it does.

    `status` is `ok`, `loading`, `stalled`, `draining` or `failed`; `response` is the whole
    response.
    """

    status: str
    model_loaded: bool
    response: dict[str, Any]

    def __bool__(self) -> bool:
        return self.status == "ok"


def read_readiness(answer: Answer) -> Readiness:
    """The readiness in `answer`; raises `KronosError` for any other response."""
    content = answer.content
    try:
        return Readiness(content["status"], content["model_loaded"], content)
    except (LookupError, TypeError):
        raise KronosError(
            f"expected a readiness, found {content!r:.200}", code="UNEXPECTED_RESPONSE"
        ) from None
