"""A JSON body, or an item of one, as a model."""

from __future__ import annotations

import codecs
from dataclasses import replace
from typing import Final, TypeVar

from pydantic import BaseModel, ValidationError

from kronos_api.errors import KronosError, MalformedJson
from kronos_api.schemas.duplicates import find_duplicate
from kronos_api.schemas.field_errors import to_error
from kronos_api.violations import InvalidFields, Violation

MAX_VALUES: Final = 32_768
"""Values that are parsed at once: over twice the values of the largest series.

They are counted before, so that no body takes long to refuse."""
_UTF16: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

Model = TypeVar("Model", bound=BaseModel)


def utf8(body: bytes) -> bytes:
    """`body` without a byte order mark; raises `MalformedJson` if it looks like UTF-16 or -32."""
    if body.startswith(_UTF16) or b"\0" in body[:4]:
        violation = Violation(
            "body", "UTF-8, with or without a byte order mark; it looks like UTF-16"
        )
        raise MalformedJson(f"{violation}.", details=[violation.detail()])
    return body.removeprefix(codecs.BOM_UTF8)


def parse_model(model: type[Model], body: bytes, item: int | None = None) -> Model:
    """`body` as a `model`; `item` is its number in a batch.

    Raises `MalformedJson`, `ValidationFailed`, and `InvalidFields`, also for duplicate keys.
    """
    if body.count(b",") >= MAX_VALUES:
        rule = f"of at most {MAX_VALUES} values"
        raise InvalidFields([Violation("body", rule, item=item)])
    try:
        parsed = model.model_validate_json(body)
    except ValidationError as error:
        failure: KronosError = to_error(error, model, body, item)
    else:
        duplicate = find_duplicate(parsed, body)
        if duplicate is None:
            return parsed
        failure = InvalidFields([duplicate if item is None else replace(duplicate, item=item)])
    # Raised outside the handler: an exception's context would keep the body.
    raise failure
