"""The tools: forecast, calendars, models."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from mcp_types import CallToolResult, TextContent, Tool, ToolAnnotations
from pydantic import BaseModel, ValidationError
from starlette.types import Receive, Scope

from kronos_api.errors import ValidationFailed
from kronos_api.mcp.routes import Answer, Routes
from kronos_api.mcp.schema import CalendarQuery, NoArguments, schema_of
from kronos_api.mcp.texts import calendars_text, error_text, forecast_text, models_text
from kronos_api.off_loop import off_loop
from kronos_api.schemas.calendars import CalendarList
from kronos_api.schemas.examples import SINGLE_REQUESTS
from kronos_api.schemas.requests import PredictRequest
from kronos_api.schemas.responses import PredictResponse
from kronos_api.schemas.status import ModelDescription

FORECAST: Final = "forecast"
CALENDARS: Final = "calendars"
MODELS: Final = "models"
NAMES: Final = (FORECAST, CALENDARS, MODELS)

_SHOWN: Final = 20
"""Violations that an error lists, as those of the routes do."""
_NAME: Final = 100
"""Characters of an argument's name that an error repeats."""
LARGE: Final = 128 * 1024
"""Results of more bytes are parsed in a thread: this many take some 2 ms."""

_READ_ONLY: Final = ToolAnnotations(read_only_hint=True, open_world_hint=False)
_FORECAST_DESCRIPTION: Final = f"""\
Forecast the next candles (open, high, low, close, volume, amount) of one series with the Kronos \
model.

Give `candles`, oldest first, with one of `timestamps` for each; 100 to 500 candles are a good \
history, 1 to 2048 are accepted. Give the number of steps as `horizon`, and the time between them \
as `freq` unless the timestamps show it. For an exchange, give its `calendar`, so that nights, \
weekends and holidays are left out; the tool `calendars` lists the codes.

The result is one candle for each step, the mean over the sample paths. It is one draw of a \
distribution unless you ask for more: `quantile_levels` such as [0.1, 0.5, 0.9] draws 30 paths and \
returns their spread, and `summary` the risk over them. `overrides.seed` makes a forecast \
repeatable. Take notice of `warnings`. Leave out `return_samples` unless you \
need each path.

An error names the field, the index and the rule; correct the arguments and call again. After \
RATE_LIMITED or QUEUE_FULL, wait as long as the message says.

Example of arguments: {json.dumps(SINGLE_REQUESTS["columnar"]["value"], separators=(",", ":"))}"""


def definitions() -> list[Tool]:
    """The tools as `tools/list` describes them."""
    return [
        Tool(
            name=FORECAST,
            title="Forecast candles",
            description=_FORECAST_DESCRIPTION,
            input_schema=schema_of(PredictRequest, "validation"),
            output_schema=schema_of(PredictResponse, "serialization"),
            annotations=_READ_ONLY,
        ),
        Tool(
            name=CALENDARS,
            title="List trading calendars",
            description="List the codes that `calendar` of the tool `forecast` takes, with their"
            " aliases, time zones and regular hours.",
            input_schema=schema_of(CalendarQuery, "validation"),
            output_schema=schema_of(CalendarList, "serialization"),
            annotations=_READ_ONLY,
        ),
        Tool(
            name=MODELS,
            title="Describe the loaded model",
            description="Tell which model and tokenizer answer, how many candles of history the"
            " model sees (`context_length`), and whether it is the demonstration (`demo`), which"
            " is not for trading.",
            input_schema=schema_of(NoArguments, "validation"),
            output_schema=schema_of(ModelDescription, "serialization"),
            annotations=_READ_ONLY,
        ),
    ]


Model = TypeVar("Model", bound=BaseModel)


class Tools:
    """Calls the routes that the tools stand for."""

    def __init__(self, routes: Routes) -> None:
        self.routes = routes

    async def call(
        self, name: str, arguments: Mapping[str, Any], caller: Scope, receive: Receive | None
    ) -> CallToolResult:
        """The result of the tool `name`, one of `NAMES`, for `caller`.

        A refusal by a route is a result with `is_error`. The call is cancelled if `receive` reports
        that the caller has disconnected.

        Raises:
            ValidationFailed: the arguments of `calendars` or `models` break a rule.
        """
        if name == FORECAST:
            # A value that JSON does not have, such as NaN, is refused by the route.
            body = json.dumps(arguments).encode()
            answer = await self.routes.post("/v1/predict/single", body, caller, receive)
            return await _result(answer, forecast_text)
        if name == CALENDARS:
            search = _checked(CalendarQuery, arguments).search
            answer = await self.routes.get("/v1/calendars", caller)
            return await _result(answer, calendars_text, lambda listed: _matching(listed, search))
        _checked(NoArguments, arguments)
        return await _result(await self.routes.get("/v1/models", caller), models_text)


async def _result(
    answer: Answer,
    text: Callable[[dict[str, Any]], str],
    select: Callable[[dict[str, Any]], dict[str, Any]] = lambda found: found,
) -> CallToolResult:
    content = answer.content or b"{}"  # empty: the caller has disconnected
    found: dict[str, Any] = await off_loop(len(content) > LARGE, json.loads, content)
    if answer.status != 200:
        return failure(found, answer.retry_after)
    found = select(found)
    return CallToolResult(content=[TextContent(text=text(found))], structured_content=found)


def failure(envelope: dict[str, Any], retry_after: int | None = None) -> CallToolResult:
    """The result for an error in the service's one shape; `retry_after` in seconds."""
    text = error_text(envelope["error"]) if envelope else "The call was cancelled."
    if retry_after is not None:
        envelope = envelope | {"retry_after": retry_after}
    return CallToolResult(
        content=[TextContent(text=text)], structured_content=envelope or None, is_error=True
    )


def _checked(model: type[Model], arguments: Mapping[str, Any]) -> Model:
    """The arguments of a tool that is no forecast; raises `ValidationFailed`."""
    try:
        return model.model_validate(arguments)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        rules = [(".".join(map(str, one["loc"]))[:_NAME], one["msg"]) for one in found]
    known = ", ".join(model.model_fields) or "none"
    message = f"{rules[0][0]}: {rules[0][1]}. Arguments of this tool: {known}."
    details = [{"field": field, "index": None, "constraint": rule} for field, rule in rules]
    raise ValidationFailed(message, details=details[:_SHOWN])


def _matching(listed: dict[str, Any], search: str | None) -> dict[str, Any]:
    """`listed` with those calendars alone that `search` is a part of."""
    if search is None:
        return listed
    part = search.casefold()
    calendars = [
        one
        for one in listed["calendars"]
        if any(
            part in text.casefold()
            for text in (one["code"], *one["aliases"], one["name"], one["country"])
        )
    ]
    return listed | {"calendars": calendars}
