"""Requests that are wrong in one or more places, and whether their responses are documented.

Valid requests of every forecast route are changed at random: fields are replaced, removed, added
and swapped, timestamps shuffled and repeated, and the text itself is cut and damaged. A response
must not be 500, its status must be one that the OpenAPI document lists for the route, and its body
must have the schema that the document gives for it.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections import Counter
from typing import Any, Final

import httpx
import jsonschema
import orjson

from kronos_api.schemas.responses import ErrorResponse
from scripts.openapi import DOCUMENT
from tests.fakes import SleepyEngine
from tests.faults.figures import Figure
from tests.web import BATCH, SINGLE, STREAM, body, columns, events, serving, stamps

CASES: Final = {False: 150, True: 10_000}
"""Requests of the short and of the long form."""
NUMBERS: Final = ("@NaN", "@Infinity", "@-Infinity", "@1e39", "@-1e39", "@1e-320", "@1" + "0" * 400)
VALUES: Final[tuple[Any, ...]] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**70, 0.5, -0.0, 1e38),
    *("", "x" * 2000, "\x00", "\ud83d\ude00", "NaN", "1", "2025-02-30T00:00:00"),
    *(
        "9999-12-31T23:59:59Z",
        "0001-01-01T00:00:00",
        "2025-03-03T09:00:00+26:00",
        [],
        {},
        [[]],
        {"": None},
    ),
)
DEPTHS: Final = (20, 200, 900)
"""Python itself nests JSON no deeper than 1,000 when it writes it."""


def bodies(numbers: random.Random) -> tuple[str, Any]:
    """A route and a valid request for it."""
    rows = numbers.randint(1, 12)
    one: dict[str, Any] = body(rows)
    if numbers.random() < 0.4:
        one["candles"] = columns(rows)
    if numbers.random() < 0.3:
        one |= {"prediction_timestamps": stamps(3), "horizon": None}
    if numbers.random() < 0.3:
        one["overrides"] = {"seed": 1, "temperature": 0.5, "top_p": 0.9, "sample_count": 2}
    path = numbers.choice((SINGLE, BATCH, STREAM))
    return path, {"items": [one, body(rows)]} if path == BATCH else one


def damaged(numbers: random.Random, request: Any) -> bytes:
    """`request` as JSON with up to three changes."""
    for _ in range(numbers.choice((0, 1, 1, 1, 2, 3))):
        request = _changed(numbers, request)
    text = json.dumps(request)
    for number in NUMBERS:
        text = text.replace(f'"{number}"', number[1:])
    content = bytearray(text.encode("utf-8", "surrogatepass"))
    if numbers.random() < 0.05:
        del content[numbers.randrange(len(content)) :]
    if content and numbers.random() < 0.05:
        content[numbers.randrange(len(content))] = numbers.randrange(256)
    return bytes(content)


def _changed(numbers: random.Random, value: Any) -> Any:
    """`value` with one change somewhere inside."""
    if isinstance(value, dict) and value and numbers.random() < 0.9:
        key = numbers.choice(list(value))
        match numbers.randrange(8):
            case 0:
                return {name: item for name, item in value.items() if name != key}
            case 1:
                return value | {numbers.choice(("x", "horizon", "", "candles")): _odd(numbers)}
        return value | {key: _changed(numbers, value[key])}
    if isinstance(value, list) and value and numbers.random() < 0.9:
        items = list(value)
        place = numbers.randrange(len(items))
        match numbers.randrange(6):
            case 0:
                numbers.shuffle(items)
            case 1:
                items.append(items[place])
            case 2:
                del items[place]
            case _:
                items[place] = _changed(numbers, items[place])
        return items
    return _odd(numbers)


def _odd(numbers: random.Random) -> Any:
    if numbers.random() < 0.05:
        value: Any = 1
        for _ in range(numbers.choice(DEPTHS)):
            value = [value] if numbers.random() < 0.5 else {"a": value}
        return value
    return numbers.choice((*VALUES, *NUMBERS))


class Contract:
    """The OpenAPI document, against which responses are compared."""

    def __init__(self) -> None:
        self._document: dict[str, Any] = json.loads(DOCUMENT.read_text("utf-8"))

    def problem(self, path: str, response: httpx.Response) -> str | None:
        """What is wrong with a response; None if it is as documented."""
        documented = self._document["paths"][path]["post"]["responses"]
        status = str(response.status_code)
        if status == "500" or status not in documented:
            return f"status {status}"
        (kind, content), *_ = documented[status]["content"].items()
        given = response.headers["content-type"].partition(";")[0]
        if given != kind:
            return f"{status} as {given}"
        if kind == "text/event-stream":
            return self._stream_problem(response.text)
        try:
            self._check(content["schema"], orjson.loads(response.content))
        except (jsonschema.ValidationError, orjson.JSONDecodeError) as error:
            return f"{status}: {str(error).splitlines()[0]}"
        return None

    def _stream_problem(self, text: str) -> str | None:
        name, data = events(text)[-1]
        if name == "done":
            return None
        ErrorResponse.model_validate(data)
        return f"event error: {data}" if data["error"]["code"] == "INTERNAL_ERROR" else None

    def _check(self, schema: dict[str, Any], value: Any) -> None:
        whole = schema | {"components": self._document["components"]}
        jsonschema.Draft202012Validator(whole).validate(value)


async def run(cases: int, seed: int = 1) -> tuple[Counter[int], list[str]]:
    """Responses by status, and what is wrong with any of them."""
    numbers, contract = random.Random(seed), Contract()
    statuses: Counter[int] = Counter()
    problems: list[str] = []
    async with serving(SleepyEngine(steps=1), max_queue=1024, log_level="CRITICAL") as client:
        for number in range(cases):
            path, request = bodies(numbers)
            content = damaged(numbers, request)
            response = await client.post(path, content=content)
            statuses[response.status_code] += 1
            if problem := contract.problem(path, response):
                case = f"case {number} of seed {seed}, {path}"
                problems.append(f"{case}: {problem}: {content[:500]!r}")
    return statuses, problems


def measure(*, long: bool) -> list[Figure]:
    """Cases, and responses that are not as documented."""
    statuses, problems = asyncio.run(run(CASES[long]))
    sys.stderr.write("".join(f"{problem}\n" for problem in problems[:10]))
    found = [Figure(f"responses with {status}", n) for status, n in sorted(statuses.items())]
    return [*found, Figure("responses not as documented", len(problems), 0)]
