"""Batches cut into items: never wrongly, whatever the items hold."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kronos_api.schemas.splitting import split_items

LONGEST, MOST = 10_000, 20

flat = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
nested = st.lists(flat) | st.dictionaries(st.text(), flat)
values = flat | st.lists(nested) | st.dictionaries(st.text(), nested)
objects = st.dictionaries(st.text(), values, max_size=5)


def split(text: str | bytes) -> list[bytes] | None:
    body = text.encode() if isinstance(text, str) else text
    return split_items(body, longest=LONGEST, most=MOST)


@settings(deadline=None)
@given(st.lists(objects, min_size=1, max_size=5), st.booleans(), st.sampled_from([None, 2]))
def test_items_are_cut_as_json_has_them(items: list[Any], ascii_: bool, indent: int | None) -> None:
    text = json.dumps({"items": items}, ensure_ascii=ascii_, indent=indent)
    parts = split(text.encode("utf-8", "replace"))
    if (
        max(len(json.dumps(item, ensure_ascii=True, indent=indent)) for item in items)
        > LONGEST // 4
    ):
        return  # may be longer than an item may be, and is then left whole
    assert parts is not None
    written = [json.dumps(item, ensure_ascii=ascii_).encode("utf-8", "replace") for item in items]
    assert [json.dumps(json.loads(part)) for part in parts] == [
        json.dumps(json.loads(one)) for one in written
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        '{"items": []}',
        '{"items": [1]}',
        '{"items": [{}]',
        '{"items": [{}}',
        '{"items": [{}] } x',
        '{"items": [{},]}',
        '{"items": [{} {}]}',
        '{"items": [{}], "more": 1}',
        '{"more": 1, "items": [{}]}',
        '{"items": [{"a": "}]}',
        '{"items": [{"a": "\\"}]}',
        '{"items": [{"a": [[[1]]]}]}',
        '[{"items": [{}]}]',
        '{"items": [{"a": "' + "x" * LONGEST + '"}]}',
    ],
)
def test_bodies_of_another_form_are_left_whole(text: str) -> None:
    assert split(text) is None


def test_unbalanced_brackets_are_left_to_the_parser_of_the_item() -> None:
    assert split('{"items": [{"a": [1}}]}') == [b'{"a": [1}}']


def test_one_item_above_the_limit_is_returned() -> None:
    parts = split('{"items": [' + ",".join(["{}"] * 1000) + "]}")
    assert parts is not None
    assert len(parts) == MOST + 1


@pytest.mark.parametrize(
    "item",
    [
        b'{"a": "' + b"\\\\" * 2**20,
        b'{"a": "' + b"\\" * 2**20,
        b"{" + b"[" * 2**20,
        b"{" + b"[]" * 2**20,
        b"{" + b'"' * 2**20,
        b"{" + b"{" * 2**20 + b"}" * 2**20,
    ],
)
def test_no_body_takes_quadratic_time(item: bytes) -> None:
    # The square of a million steps is hours: a quadratic reader would never get past this.
    split_items(b'{"items": [' + item + b"]}", longest=2**21, most=MOST)
