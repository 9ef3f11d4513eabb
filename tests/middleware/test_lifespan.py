"""Start and stop, as a server asks for them."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from kronos_api.errors import StartupError
from kronos_api.middleware.lifespan import Lifespan


async def untouched(scope: Scope, _: Receive, send: Send) -> None:
    await send({"type": scope["type"]})


async def nothing() -> None:
    pass


async def run(lifespan: Lifespan, kind: str = "lifespan") -> list[dict[str, Any]]:
    sent: list[Any] = []

    async def receive() -> Any:
        return {}

    async def send(message: Any) -> None:
        sent.append(message)

    await lifespan({"type": kind}, receive, send)
    return sent


async def test_start_and_stop() -> None:
    done: list[str] = []

    async def startup() -> None:
        done.append("startup")

    async def shutdown() -> None:
        done.append("shutdown")

    sent = await run(Lifespan(untouched, startup=startup, shutdown=shutdown))
    assert [message["type"] for message in sent] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]
    assert done == ["startup", "shutdown"]


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (StartupError("no model"), "no model"),
        (RuntimeError("s3cr3t"), "The service failed to start because of a defect."),
    ],
)
async def test_a_failed_start_is_one_line(failure: Exception, message: str) -> None:
    async def startup() -> None:
        raise failure

    sent = await run(Lifespan(untouched, startup=startup, shutdown=nothing))
    assert sent == [{"type": "lifespan.startup.failed", "message": message}]


async def test_a_failed_stop_is_told() -> None:
    async def shutdown() -> None:
        raise RuntimeError

    sent = await run(Lifespan(untouched, startup=nothing, shutdown=shutdown))
    assert sent[-1] == {
        "type": "lifespan.shutdown.failed",
        "message": "The service failed to stop.",
    }


@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_all_else_goes_through(kind: str) -> None:
    lifespan = Lifespan(untouched, startup=nothing, shutdown=nothing)
    assert await run(lifespan, kind) == [{"type": kind}]
