"""Finds keys that stand twice in one object of a body.

The JSON parser takes the last of them without a word, so that a request with two horizons would
be answered for one of them.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

import numpy as np
from pydantic import BaseModel

from kronos_api.schemas.known_keys import LONGEST_KEY
from kronos_api.schemas.requests import BatchRequest, Columns, PredictRequest
from kronos_api.violations import Violation

RULE: Final = "given once: it stands twice in one object"

# A string, and the colon behind it if it is a key. Possessive: nothing is looked at twice.
_STRING: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"[ \t\r\n]*+(:?)', re.DOTALL)


def find_duplicate(parsed: BaseModel, body: bytes) -> Violation | None:
    """The first key that stands twice in one object of `body`, which was parsed as `parsed`.

    `body` has as many keys as `parsed` has fields set, or more if some stand twice. Counting
    costs a few hundredths of parsing; only if there are more, `body` is parsed once again.
    """
    if _keys_in_text(body) == _keys_in(parsed):
        return None
    text = json.loads(body, object_pairs_hook=_Pairs, parse_int=float)
    return _first(text, (), None, None)


def _keys_in(parsed: BaseModel) -> int:
    """How many fields are set in `parsed` and the models in it."""
    count = len(parsed.model_fields_set)
    if isinstance(parsed, BatchRequest):
        return count + sum(map(_keys_in, parsed.items))
    if isinstance(parsed, PredictRequest):
        candles = parsed.candles
        rows = [candles] if isinstance(candles, Columns) else candles
        count += sum([len(row.model_fields_set) for row in rows])
        count += len(parsed.overrides.model_fields_set) if parsed.overrides else 0
    return count


def _keys_in_text(body: bytes) -> int:
    """How many strings in `body`, which is a JSON object, are followed by a colon."""
    if b"\\" not in body:  # every other quote ends a string
        text = np.frombuffer(body, np.uint8)
        behind = text[np.flatnonzero(text == ord('"'))[1::2] + 1]
        if not (behind <= ord(" ")).any():
            return int(np.count_nonzero(behind == ord(":")))
    return _STRING.findall(body).count(b":")


class _Pairs(list[tuple[str, Any]]):
    """An object, as the pairs that it was written with."""


def _first(
    value: Any, names: tuple[str, ...], index: int | None, item: int | None
) -> Violation | None:
    """The first key that stands twice in `value`, which stands at `names`, `index` and `item`."""
    if isinstance(value, _Pairs):
        seen = set()
        for key, inner in value:
            if key in seen:
                return Violation(".".join((*names, key[:LONGEST_KEY])), RULE, index, item)
            seen.add(key)
            if found := _first(inner, (*names, key), index, item):
                return found
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            place = ((), None, number) if names == ("items",) else (names, number, item)
            if found := _first(inner, *place):
                return found
    return None
