"""Split the body of a batch into its items.

pydantic's parser holds the interpreter from the first byte of a body to the last. Parsed item by
item, a batch lets the event loop run in between. Only brackets and strings are matched here; the
parser of an item checks its content.
"""

from __future__ import annotations

import re
from typing import Final

# A string; anything but strings and brackets. Possessive: nothing is ever looked at twice.
_STRING: Final = rb'"(?:[^"\\]++|\\.)*+"'
_PLAIN: Final = rb'[^"\[\]{}]++'


def _contents(depth: int) -> bytes:
    """A pattern for what may stand between brackets that nest `depth` times at most."""
    inner = _PLAIN + b"|" + _STRING
    for _ in range(depth):
        inner += rb"|[\[{](?:" + inner + rb")*+[\]}]"
    return inner


_HEAD: Final = re.compile(rb'[ \t\r\n]*\{[ \t\r\n]*"items"[ \t\r\n]*:[ \t\r\n]*\[[ \t\r\n]*')
# An item holds candles, which are a list of objects or an object of lists.
_ITEM: Final = re.compile(rb"\{(?:" + _contents(2) + rb")*+\}", re.DOTALL)
_COMMA: Final = re.compile(rb"[ \t\r\n]*,[ \t\r\n]*")
_TAIL: Final = re.compile(rb"[ \t\r\n]*\][ \t\r\n]*\}[ \t\r\n]*")


def split_items(body: bytes, *, longest: int, most: int) -> list[bytes] | None:
    """The items of `{"items": [...]}`, as bytes; None if the body is not plainly that.

    Nor are items of more than `longest` bytes plain, which bounds the time that one takes. Of
    more than `most` items only `most` + 1 are given.
    """
    place = _HEAD.match(body)
    items: list[bytes] = []
    while place is not None:
        item = _ITEM.match(body, place.end(), place.end() + longest)
        if item is None:
            return None
        items.append(item[0])
        if len(items) > most or _TAIL.fullmatch(body, item.end()):
            return items
        place = _COMMA.match(body, item.end())
    return None
