"""JSON Schemas of tools, from the wire models."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import BaseModel, Field

from kronos_api.schemas.requests import RequestModel

_REFERENCE: Final = "#/$defs/"


class CalendarQuery(RequestModel):
    """Which calendars to list."""

    search: str | None = Field(default=None, min_length=1, max_length=100)
    """Part of a code, alias, name or country, in any case, such as NYSE or Hong Kong; all calendars
    by default."""


class NoArguments(RequestModel):
    """A tool without arguments."""


def schema_of(
    model: type[BaseModel], mode: Literal["validation", "serialization"]
) -> dict[str, Any]:
    """The JSON Schema of `model`, self-contained: some clients do not follow references."""
    schema = model.model_json_schema(mode=mode)
    definitions = schema.pop("$defs", {})
    inlined: dict[str, Any] = _inlined(schema, definitions)
    return inlined


def _inlined(node: Any, definitions: dict[str, Any]) -> Any:
    """`node` with each reference replaced; the wire models are not recursive."""
    if isinstance(node, list):
        return [_inlined(value, definitions) for value in node]
    if not isinstance(node, dict):
        return node
    reference = node.get("$ref")
    if isinstance(reference, str):
        # A description beside a reference is that of the field, which says more.
        rest = {name: value for name, value in node.items() if name != "$ref"}
        node = definitions[reference.removeprefix(_REFERENCE)] | rest
    return {name: _inlined(value, definitions) for name, value in node.items()}
