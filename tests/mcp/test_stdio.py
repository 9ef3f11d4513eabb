"""`kronos-api mcp`: a whole session with the process that an agent's program starts."""

from __future__ import annotations

import os
import subprocess
import sys

import anyio
import pytest
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters

from tests.web import body

pytestmark = pytest.mark.process

COMMAND = [sys.executable, "-m", "kronos_api", "mcp"]


async def test_a_session_over_stdio() -> None:
    environment = {"PATH": os.environ["PATH"], "KRONOS_TORCH_THREADS": "1"}
    command = StdioServerParameters(command=COMMAND[0], args=COMMAND[1:], env=environment)
    with anyio.fail_after(300):
        async with Client(command) as client:
            assert "forecast" in [tool.name for tool in (await client.list_tools()).tools]
            models = await client.call_tool("models", {})
            assert models.structured_content["demo"]

            bad = await client.call_tool("forecast", body(4, horizon=0))
            assert bad.is_error
            assert bad.structured_content["error"]["code"] == "INVALID_INPUT"

            # Would take far longer than the whole test.
            large = body(60, horizon=512, overrides={"sample_count": 64})
            with anyio.move_on_after(0.5) as cancelled:
                await client.call_tool("forecast", large)
            assert cancelled.cancelled_caught

            good = await client.call_tool("forecast", body(60, horizon=5, overrides={"seed": 7}))
            assert len(good.structured_content["prediction"]) == 5


def test_a_checkpoint_that_is_missing_ends_it_with_one_line() -> None:
    environment = {"PATH": os.environ["PATH"], "KRONOS_MODEL_PATH": "/nonexistent"}
    ended = subprocess.run(
        COMMAND,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 1
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert "/nonexistent" in line
