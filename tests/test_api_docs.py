"""docs/api.md: its examples run against the service, and its tables are complete."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import pytest_asyncio

from kronos_api.app import create_app
from kronos_api.config import Settings
from kronos_api.errors import KronosError
from kronos_api.schemas.requests import Candle, Overrides, PredictRequest
from kronos_api.schemas.responses import PredictResponse
from kronos_api.schemas.warnings import WarningCode
from tests.web import STREAM, events, listening

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = (ROOT / "docs" / "api.md").read_text("utf-8")
BLOCKS: Final = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Example:
    """A curl command of the page, and the response shown below it, if one is."""

    path: str
    body: bytes | None
    shown: Any


def examples() -> list[Example]:
    """All of the page, in order."""
    found = []
    for number, (language, text) in enumerate(BLOCKS):
        if language == "bash":
            words = shlex.split(text)
            assert words[:2] in (["curl", "-s"], ["curl", "-sN"]), text
            data = words[words.index("-d") + 1] if "-d" in words else None
            body = data.encode() if data is not None else None
            if data is not None and data.startswith("@"):
                body = (ROOT / data[1:]).read_bytes()
            below = BLOCKS[number + 1] if number + 1 < len(BLOCKS) else ("", "")
            shown = json.loads(below[1]) if below[0] == "json" else None
            shown = events(below[1]) if below[0] == "text" else shown
            found.append(Example(words[2].removeprefix("localhost:8000"), body, shown))
    return found


EXAMPLES: Final = examples()


def shape(value: Any, field: str = "") -> Any:
    """`value` without its content: keys, types and lengths; of warnings, which vary, the first."""
    if isinstance(value, dict):
        return {key: shape(inner, key) for key, inner in value.items()}
    if isinstance(value, list):
        return [shape(inner) for inner in (value[:1] if field == "warnings" else value)]
    return "number" if type(value) in (int, float) else type(value).__name__


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """A client of the service with the bundled checkpoint."""
    async with (
        listening(create_app(Settings(rate_limit_per_minute=10_000))) as (host, port),
        httpx.AsyncClient(base_url=f"http://{host}:{port}", timeout=120) as client,
    ):
        while (await client.get("/v1/readyz")).json()["status"] == "loading":
            await asyncio.sleep(0.05)
        yield client


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.path)
async def test_example_gets_the_response_shown(client: httpx.AsyncClient, example: Example) -> None:
    headers = {"Content-Type": "application/json"}
    method = "GET" if example.body is None else "POST"
    response = await client.request(method, example.path, content=example.body, headers=headers)
    if example.path == STREAM:
        sent = [(name, shape(data)) for name, data in events(response.text)]
        assert sent == [(name, shape(data)) for name, data in example.shown]
        return
    answer = response.json()
    if isinstance(example.shown, dict) and "error" in example.shown:
        shown, found = example.shown["error"], answer["error"]
        assert found | {"request_id": shown["request_id"]} == shown
        assert response.status_code == _status(shown["code"])
        return
    assert response.status_code == 200, response.text
    if example.shown is not None:
        assert shape(answer) == shape(example.shown)


def test_each_response_belongs_to_a_command() -> None:
    assert len(EXAMPLES) > 5
    for (language, _), (before, _) in zip(BLOCKS[1:], BLOCKS, strict=False):
        assert language not in ("json", "text") or before == "bash"


@pytest.mark.parametrize(
    "name",
    sorted(
        {*PredictRequest.model_fields, *Overrides.model_fields, *PredictResponse.model_fields}
        | {*Candle.model_fields}
    ),
)
def test_each_field_has_a_row(name: str) -> None:
    assert re.search(rf"^\|[^|]*`{name}`[^|]*\|", PAGE, re.MULTILINE)


@pytest.mark.parametrize("code", sorted(WarningCode))
def test_each_warning_has_a_row(code: str) -> None:
    assert re.search(rf"^\| `{code}` \| \S.* \| \S.* \|$", PAGE, re.MULTILINE)


def _errors() -> dict[str, int]:
    found, classes = {}, list(KronosError.__subclasses__())
    while classes:
        error = classes.pop()
        found[error.code] = error.status
        classes += error.__subclasses__()
    return found


def _status(code: str) -> int:
    return _errors()[code]


@pytest.mark.parametrize(("code", "status"), sorted(_errors().items()))
def test_each_error_code_has_a_row_with_its_status(code: str, status: int) -> None:
    assert re.search(rf"^\| {status} \| `{code}` \| \S.* \| \S.* \|$", PAGE, re.MULTILINE)
