"""pydantic's errors in the service's own shape: field, index and rule, without the values."""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json, to_json

from kronos_api.errors import KronosError, MalformedJson, ValidationFailed
from kronos_api.schemas.known_keys import LONGEST_KEY, unknown_key
from kronos_api.timeseries.parsing import EPOCH_EXAMPLE
from kronos_api.violations import MAX_DETAILS, InvalidFields, Violation, each_field_first

MAX_LISTED: Final = 200
"""More errors are not formatted: a list of 30,000 of them holds the interpreter for 0.1 s."""
SHORT_LIST: Final = 20
"""Elements of each list that are validated again where there are more errors."""

_CANDLE: Final = 'an object such as {"open": 100, "high": 102, "low": 99, "close": 101}'
_FORMS = ("rows", "columns")
_NO_FORM = ("list_type", "model_type")
# Value rules, as opposed to types: the bound is in the context of the error.
_BOUNDS: Final = {
    "greater_than": ("greater than {}", "gt"),
    "greater_than_equal": ("at least {}", "ge"),
    "less_than": ("less than {}", "lt"),
    "less_than_equal": ("at most {}", "le"),
    "too_short": ("at least {} long", "min_length"),
    "too_long": ("at most {} long", "max_length"),
    "string_too_short": ("at least {} characters long", "min_length"),
    "string_too_long": ("at most {} characters long", "max_length"),
    "finite_number": ("finite", ""),
    "enum": ("{}", "expected"),
    "int_parsing_size": ("of fewer digits", ""),
}
_TYPES: Final = {
    "float_type": "a number such as 101.5, without quotes",
    "int_type": "an integer",
    "int_from_float": "an integer",
    "string_type": "a string",
    "bool_type": "true or false",
    "list_type": "an array",
    "model_type": "an object",
}
_JSON_TYPES: Final = {
    str: "a string",
    bool: "true or false",
    int: "a number",
    float: "a number",
    list: "an array",
    dict: "an object",
    type(None): "null",
}


def to_error(
    error: ValidationError, model: type[BaseModel], body: bytes, item: int | None = None
) -> KronosError:
    """The error response for `body`, which is not a `model`; `item` is its number in a batch.

    Returns `MalformedJson` if the body is not JSON, `InvalidFields` if only values are out of
    bounds, and `ValidationFailed` if a type is wrong or a key is missing or unknown.
    """
    total = error.error_count()
    if total > MAX_LISTED:
        shortened = _shortened(model, body)
        if shortened is not None and shortened.error_count() > MAX_LISTED:
            return _failed([Violation("body", f"valid; found {total} errors in it", item=item)])
        error = shortened or error
    found: list[Any] = error.errors(include_url=False)
    if found[0]["type"] == "json_invalid":
        violation = Violation("body", f"JSON: {found[0]['ctx']['error']}", item=item)
        return MalformedJson(f"{violation}.", details=[violation.detail()])
    listed = _without_other_form(found)
    total -= len(found) - len(listed)
    # A misspelt key explains the missing one.
    listed.sort(key=lambda one: one["type"] != "extra_forbidden")
    violations = [_violation(one, item) for one in each_field_first(listed, _field)[:MAX_DETAILS]]
    if all(one["type"] in _BOUNDS for one in listed):
        return InvalidFields(violations, total=total)
    return _failed(violations, total)


def _failed(violations: list[Violation], total: int | None = None) -> ValidationFailed:
    listed = InvalidFields(violations, total=total)
    return ValidationFailed(listed.message, details=listed.details)


def _field(one: Any) -> tuple[int | str, ...]:
    """The place of an error without the index of the element."""
    loc: tuple[int | str, ...] = one["loc"]
    return tuple(part for part in loc if isinstance(part, str))


def _shortened(model: type[BaseModel], body: bytes) -> ValidationError | None:
    """The error of `body` with the first elements of each list; None if they are right."""
    try:
        model.model_validate_json(to_json(_cut(from_json(body)), inf_nan_mode="constants"))
    except ValidationError as error:
        return error
    return None


def _cut(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _cut(inner) for key, inner in value.items()}
    return [_cut(inner) for inner in value[:SHORT_LIST]] if isinstance(value, list) else value


def _without_other_form(found: list[Any]) -> list[Any]:
    """Leave out that candles in one form are not candles in the other.

    Items of a batch are left at the first error, so there is one value of `candles` at most.
    """
    places = {("candles", form) for form in _FORMS}
    other = [one for one in found if one["loc"][-2:] in places and one["type"] in _NO_FORM]
    rest = [one for one in found if one not in other]
    return rest if len(other) == 1 else other[:1] + rest


def _violation(one: Any, item: int | None) -> Violation:
    """Field, index and rule, from ("items", 3, "candles", "rows", 17, "high") and its like."""
    loc: tuple[int | str, ...] = one["loc"]
    if len(loc) > 1 and loc[0] == "items" and isinstance(loc[1], int):
        item, loc = loc[1], loc[2:]
    if form := len(loc) > 1 and loc[0] == "candles" and loc[1] in _FORMS:
        loc = (loc[0], *loc[2:])
    names = [part[:LONGEST_KEY] for part in loc if isinstance(part, str)]
    indices = [part for part in loc if isinstance(part, int)]
    if form and len(loc) == 1 and one["type"] in _NO_FORM:
        rule = _with_found("an array of candles or an object of columns", one)
    else:
        rule = _rule(one, loc, item)
    field = ".".join(names) or ("items" if item is not None else "body")
    return Violation(field, rule, indices[-1] if indices else None, item)


def _rule(one: Any, loc: tuple[int | str, ...], item: int | None) -> str:
    kind, context = one["type"], one.get("ctx", {})
    if kind == "extra_forbidden":
        return unknown_key(loc)
    if kind == "missing":
        return "given"
    if bound := _BOUNDS.get(kind):
        text, name = bound
        limit = context.get(name)
        rule = text.format(f"{limit:g}" if isinstance(limit, float) else limit)
        return f"{rule}; found {context['actual_length']}" if kind == "too_long" else rule
    rule = _TYPES.get(kind, str(kind).replace("_", " "))
    top = loc[0] if loc else None
    if kind == "string_type" and top in ("timestamps", "prediction_timestamps"):
        rule = f"a string in ISO 8601: {EPOCH_EXAMPLE}"
    elif kind == "model_type" and top == "candles":
        rule = _CANDLE
    elif kind == "list_type" and top == "candles":
        rule = 'an array of numbers, as of pandas\' df.to_dict("list")'
    elif kind == "model_type" and not loc and item is None and isinstance(one["input"], list):
        rule = 'an object; several series are {"items": [...]} for /v1/predict/batch'
    return _with_found(rule, one)


def _with_found(rule: str, one: Any) -> str:
    """`rule`, and the JSON type that was found; never the value."""
    value = one["input"]
    found = _JSON_TYPES.get(type(value))
    return rule if found is None or one["type"] == "int_from_float" else f"{rule}; found {found}"
