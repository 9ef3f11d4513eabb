"""Start and stop, as a server asks for them."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from kronos_api.errors import StartupError
from kronos_api.middleware.lifespan import STATE, Lifespan, Managed


async def untouched(scope: Scope, _: Receive, send: Send) -> None:
    await send({"type": scope["type"]})


class Steps:
    """Notes what is asked of it, and fails if it is to."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.done: list[str] = []
        self.failure = failure

    async def start(self) -> None:
        self.done.append("start")
        if self.failure is not None:
            raise self.failure

    async def stop(self) -> None:
        self.done.append("stop")
        raise RuntimeError


async def run(
    service: Managed, kind: str = "lifespan", state: dict[str, Any] | None = None
) -> list[dict[str, Any]]:
    sent: list[Any] = []

    async def receive() -> Any:
        return {}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": kind} | ({} if state is None else {"state": state})
    await Lifespan(untouched, service=service)(scope, receive, send)
    return sent


class Well(Steps):
    async def stop(self) -> None:
        self.done.append("stop")


async def test_start_and_stop() -> None:
    service = Well()
    state: dict[str, Any] = {}
    sent = await run(service, state=state)
    assert [message["type"] for message in sent] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]
    assert service.done == ["start", "stop"]
    assert state[STATE] is service  # where the server finds it


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (StartupError("no model"), "no model"),
        (
            RuntimeError("s3cr3t"),
            "The service failed to start: unhandled exception, with a traceback in the log.",
        ),
    ],
)
async def test_a_failed_start_is_one_line(failure: Exception, message: str) -> None:
    sent = await run(Steps(failure))
    assert sent == [{"type": "lifespan.startup.failed", "message": message}]


async def test_failed_stop_is_reported() -> None:
    sent = await run(Steps())
    assert sent[-1] == {
        "type": "lifespan.shutdown.failed",
        "message": "The service failed to stop.",
    }


@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_other_scopes_pass(kind: str) -> None:
    service = Steps()
    assert await run(service, kind) == [{"type": kind}]
    assert service.done == []
