"""What the service says about itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypedDict

from kronos_api_client.errors import KronosError
from kronos_api_client.exchange import Answer, Request

MODELS = Request("GET", "/v1/models")
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
