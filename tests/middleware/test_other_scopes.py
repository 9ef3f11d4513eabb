"""What is no HTTP request goes through all middleware as it came."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.types import ASGIApp, Scope

from kronos_api.middleware.access_log import AccessLog
from kronos_api.middleware.body_limit import BodyLimit
from kronos_api.middleware.body_memory import BodyMemory
from kronos_api.middleware.envelope import Envelope
from kronos_api.middleware.head_method import HeadMethod
from kronos_api.middleware.request_id import RequestId


@pytest.mark.parametrize(
    "wrap",
    [
        AccessLog,
        Envelope,
        HeadMethod,
        RequestId,
        lambda app: BodyLimit(app, limit=0, memory=BodyMemory(0)),
    ],
)
async def test_websocket_passes(wrap: Any) -> None:
    seen: list[Scope] = []

    async def app(scope: Scope, *_: object) -> None:
        seen.append(scope)

    scope: Scope = {"type": "websocket"}
    wrapped: ASGIApp = wrap(app)
    await wrapped(scope, None, None)  # type: ignore[arg-type]
    assert seen == [{"type": "websocket"}]
