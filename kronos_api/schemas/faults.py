"""What pydantic finds wrong, told in the service's own shape and without the values."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, Final

from pydantic import ValidationError

from kronos_api.errors import KronosError, MalformedJson, ValidationFailed
from kronos_api.schemas.requests import Overrides, PredictRequest
from kronos_api.timeseries.parsing import EPOCH_EXAMPLE
from kronos_api.violations import InvalidFields, Violation

MOST_FAULTS: Final = 1000
"""More faults are not listed: a list of a million takes a second to make."""
LONGEST_KEY: Final = 64

_TAGS = ("rows", "columns")
_NO_FORM = ("list_type", "model_type")
# Value rules, as opposed to types: the bound is in the context of the error.
_BOUNDS: Final[Mapping[str, tuple[str, str]]] = {
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
OTHER_NAMES: Final[Mapping[str, str]] = {
    "T": "overrides.temperature",
    "x_timestamp": "timestamps",
    "y_timestamp": "prediction_timestamps",
    "kline_data": "candles",
    "ohlcv": "candles",
    "data": "candles",
    "df": "candles",
    "pred_days": "horizon",
    "steps": "horizon",
    "n_samples": "overrides.sample_count",
    "num_samples": "overrides.sample_count",
    "quantiles": "quantile_levels",
    "frequency": "freq",
    "interval": "freq",
    "symbol": "series_id",
}
"""Keys of other forecast services and of Kronos' own examples, and ours."""
_TYPES: Final[Mapping[str, str]] = {
    "missing": "given",
    "extra_forbidden": "absent: no such key is known",
    "float_type": "a number",
    "int_type": "an integer",
    "int_from_float": "an integer",
    "string_type": "a string",
    "bool_type": "true or false",
    "list_type": "an array",
    "model_type": "an object",
}


def told(error: ValidationError, item: int | None = None) -> KronosError:
    """The refusal that `error` amounts to, in a batch's item number `item`.

    `MalformedJson` if the body is not JSON, `InvalidFields` if values alone are out of bounds,
    `ValidationFailed` if a type is wrong or a key is missing or unknown.
    """
    if error.error_count() > MOST_FAULTS:
        faults = [Violation("body", f"free of faults: it has more than {MOST_FAULTS}", item=item)]
        return _failed(faults)
    found: list[Any] = error.errors(include_url=False, include_input=False)
    if found[0]["type"] == "json_invalid":
        fault = Violation("body", f"JSON: {found[0]['ctx']['error']}", item=item)
        return MalformedJson(f"{fault}.", details=[fault.detail()])
    found = _without_other_form(found)
    faults = [_breach(one, item) for one in found]
    if all(one["type"] in _BOUNDS for one in found):
        return InvalidFields(faults)
    return _failed(faults)


def _failed(faults: list[Violation]) -> ValidationFailed:
    listed = InvalidFields(faults)
    return ValidationFailed(listed.message, details=listed.details)


def _without_other_form(found: list[Any]) -> list[Any]:
    """Leave out that candles in one form are not candles in the other.

    A list of items is left at its first fault, so there is one value of `candles` at most.
    """
    places = {("candles", tag) for tag in _TAGS}
    forms = [one for one in found if one["loc"][-2:] in places and one["type"] in _NO_FORM]
    rest = [one for one in found if one not in forms]
    return rest if len(forms) == 1 else forms[:1] + rest


def _breach(one: Any, item: int | None) -> Violation:
    """Where and what, from ("items", 3, "candles", "rows", 17, "high") and its like."""
    loc: tuple[int | str, ...] = one["loc"]
    if len(loc) > 1 and loc[0] == "items" and isinstance(loc[1], int):
        item, loc = loc[1], loc[2:]
    form = len(loc) > 1 and loc[0] == "candles" and loc[1] in _TAGS
    if form:
        loc = (loc[0], *loc[2:])
    names = [part[:LONGEST_KEY] for part in loc if isinstance(part, str)]
    indices = [part for part in loc if isinstance(part, int)]
    rule = _rule(one)
    if form and len(loc) == 1 and one["type"] in _NO_FORM:
        rule = "an array of candles or an object of columns"
    field = ".".join(names) or ("items" if item is not None else "body")
    return Violation(field, rule, indices[-1] if indices else None, item)


def _nearest(key: str, within_overrides: bool) -> str | None:
    """The known key that was probably meant by `key`, with its place."""
    overrides = {name: f"overrides.{name}" for name in Overrides.model_fields}
    own = {name: name for name in PredictRequest.model_fields}
    known = overrides | own if not within_overrides else own | overrides
    if key in OTHER_NAMES:
        return OTHER_NAMES[key]
    near = difflib.get_close_matches(key.lower(), known, n=1)
    return known[near[0]] if near else None


def _rule(one: Any) -> str:
    if one["type"] == "extra_forbidden":
        loc = one["loc"]
        near = _nearest(str(loc[-1]), "overrides" in loc)
        if near is not None and "candles" not in loc[:-1]:
            return f"{_TYPES['extra_forbidden']}; did you mean {near}?"
    if bound := _BOUNDS.get(one["type"]):
        text, name = bound
        limit = one.get("ctx", {}).get(name)
        return text.format(f"{limit:g}" if isinstance(limit, float) else limit)
    if one["type"] == "string_type" and {"timestamps", "prediction_timestamps"} & set(one["loc"]):
        return f"a string in ISO 8601: {EPOCH_EXAMPLE}"
    return _TYPES.get(one["type"], str(one["type"]).replace("_", " "))
