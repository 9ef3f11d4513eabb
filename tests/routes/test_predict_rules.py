"""Every rule of a request, broken over HTTP: its error and its cost."""

from __future__ import annotations

import codecs
import gzip
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.web import (
    BATCH,
    SINGLE,
    START,
    body,
    candles,
    columns,
    encode,
    serving,
    stamps,
    with_candle,
)

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
]

FAR: dict[str, Any] = {
    "prediction_timestamps": stamps(2, START.replace(year=2026)),
    "horizon": None,
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with serving(max_decode_steps=1000) as client:
        yield client


def overrides(**values: Any) -> dict[str, Any]:
    return body(overrides=values)


def columnar(**changes: Any) -> dict[str, Any]:
    return body(candles=columns() | changes)


# request, field, index, part of the constraint
VALUES: list[tuple[dict[str, Any], str, int | None, str]] = [
    # numbers that are none, or not in float32
    (with_candle(1, high=float("nan")), "candles.high", 1, "finite in float32"),
    (with_candle(1, high=float("inf")), "candles.high", 1, "finite in float32"),
    (with_candle(2, low=float("-inf")), "candles.low", 2, "finite in float32"),
    (with_candle(3, close="@1e999"), "candles.close", 3, "finite in float32"),
    (with_candle(0, open="@-1e999"), "candles.open", 0, "finite in float32"),
    (with_candle(3, high=1e39), "candles.high", 3, "finite in float32"),
    (with_candle(3, high="@1" + "0" * 400), "candles.high", 3, "finite in float32"),
    (with_candle(3, volume=float("nan")), "candles.volume", 3, "finite in float32"),
    (with_candle(3, amount=float("nan")), "candles.amount", 0, "in all candles or in none"),
    (columnar(close=[1.0, float("nan"), 1.0, 1.0]), "candles.close", 1, "finite in float32"),
    # signs and sizes
    (with_candle(0, low=0), "candles.low", 0, "greater than 0"),
    (with_candle(0, low=-1.5), "candles.low", 0, "greater than 0"),
    (with_candle(0, low=1e-60), "candles.low", 0, "greater than 0"),
    (with_candle(2, volume=-1), "candles.volume", 2, "at least 0"),
    (columnar(amount=[1, 1, -1, 1]), "candles.amount", 2, "at least 0"),
    (with_candle(2, high=2e17), "candles.high", 2, "at most 1e+17"),
    (with_candle(2, volume=3e38), "candles.volume", 2, "at most 1e+17"),
    (with_candle(2, volume=9e16), "candles.volume", 2, "multiplied by the mean price"),
    # order
    (with_candle(3, high=1), "candles.high", 3, "at least open and close"),
    (with_candle(3, low=1e6), "candles.low", 3, "at most open and close"),
    (columnar(high=[1.0] * 4), "candles.high", 0, "at least open and close"),
    (with_candle(1, open=1e39), "candles.open", 1, "finite in float32"),
    # shapes
    (body(candles=[]), "candles", None, "at least 1 long"),
    (body(candles={name: [] for name in columns()}), "candles.open", None, "at least 1 long"),
    (body(candles=candles(2049)), "candles", None, "at most 2048 long"),
    (body(candles=columns(2049)), "candles.open", None, "at most 2048 long"),
    (columnar(close=[1.0]), "candles.close", None, "as long as candles.open (4)"),
    (columnar(volume=[1.0] * 5), "candles.volume", None, "as long as candles.open (4)"),
    (with_candle(2, volume=None), "candles.volume", 2, "given in all candles or in none"),
    (
        body(
            candles=[
                {k: v for k, v in c.items() if k != "volume"} | {"amount": 1} for c in candles(4)
            ]
        ),
        "candles.amount",
        None,
        "absent where there is no volume",
    ),
    (columnar(volume=None, amount=[1.0] * 4), "candles.amount", None, "absent where there is no"),
    (body(timestamps=stamps(3)), "timestamps", None, "as long as candles (4)"),
    (body(timestamps=[]), "timestamps", None, "at least 1 long"),
    (body(timestamps=stamps(2049)), "timestamps", None, "at most 2048 long"),
    (
        body(prediction_timestamps=[], horizon=None),
        "prediction_timestamps",
        None,
        "at least 1 long",
    ),
    (
        body(prediction_timestamps=stamps(513, START.replace(year=2026)), horizon=None),
        "prediction_timestamps",
        None,
        "at most 512 long",
    ),
    # timestamps
    (body(timestamps=[*stamps(3), "tomorrow"]), "timestamps", 3, "ISO 8601"),
    (body(timestamps=[*stamps(3), "2025-02-29T00:00:00Z"]), "timestamps", 3, "ISO 8601"),
    (body(timestamps=["2025-01-01T24:00:00Z", *stamps(3)]), "timestamps", 0, "ISO 8601"),
    (body(timestamps=["2025-01-01T00:00:60Z", *stamps(3)]), "timestamps", 0, "ISO 8601"),
    (body(timestamps=["1699-12-31T00:00:00Z", *stamps(3)]), "timestamps", 0, "1700 to 2200"),
    (body(timestamps=["", *stamps(3)]), "timestamps", 0, "ISO 8601"),
    (body(timestamps=[*stamps(3), stamps(3)[-1]]), "timestamps", 3, "after the one before"),
    (body(timestamps=stamps(4)[::-1]), "timestamps", None, "oldest first; these are newest first"),
    (
        body(quantile_levels=[0.1], overrides={"sample_count": 1}),
        "overrides.sample_count",
        None,
        "at least 2 with quantile_levels or summary",
    ),
    (
        body(timestamps=["2025-01-01T02:00+01:00", "2025-01-01T02:30+02:00", *stamps(2)]),
        "timestamps",
        1,
        "after the one before",
    ),
    (body(timestamps=[*stamps(3), stamps(4, zone="")[3]]), "timestamps", 3, "with an offset"),
    (body(timestamps=[*stamps(3, zone=""), stamps(4)[3]]), "timestamps", 3, "without an offset"),
    (
        body(prediction_timestamps=stamps(2, START.replace(year=2026), zone=""), horizon=None),
        "prediction_timestamps",
        0,
        "with an offset",
    ),
    (
        body(prediction_timestamps=stamps(5)[3:], horizon=None),
        "prediction_timestamps",
        0,
        "after the last of timestamps",
    ),
    (
        body(prediction_timestamps=stamps(6)[:3:-1], horizon=None),
        "prediction_timestamps",
        1,
        "after the one before",
    ),
    # the future
    (body(horizon=0), "horizon", None, "at least 1"),
    (body(horizon=513), "horizon", None, "at most 512"),
    (body(**FAR | {"horizon": 2}), "horizon", None, "absent where prediction_timestamps"),
    (body(**FAR, freq="1h"), "freq", None, "absent where prediction_timestamps"),
    (body(**FAR, calendar="XNYS"), "calendar", None, "absent where prediction_timestamps"),
    *(
        (body(freq=freq), "freq", None, "a step of one second to one year")
        for freq in ("", "x", "0min", "-5min", "1ms", "500us", "2YE", "367D", "9" * 9 + "s")
    ),
    (body(freq="h" * 33), "freq", None, "at most 32 characters long"),
    (body(2), "freq", None, "given, because it cannot be inferred"),
    (body(calendar="XNYSE"), "calendar", None, "such as XNYS"),
    (body(calendar="XNYS", freq="W-FRI"), "freq", None, "shorter than a day, 1D or B"),
    (body(calendar="X" * 33), "calendar", None, "at most 32 characters long"),
    # options
    (overrides(pred_len=0), "overrides.pred_len", None, "at least 1"),
    (overrides(pred_len=513), "overrides.pred_len", None, "at most 512"),
    (overrides(pred_len=3), "overrides.pred_len", None, "the number of future timestamps (2)"),
    (
        body(**FAR, overrides={"pred_len": 3}),
        "overrides.pred_len",
        None,
        "the number of future timestamps (2)",
    ),
    (overrides(temperature=-0.1), "overrides.temperature", None, "at least 0"),
    (overrides(temperature=101), "overrides.temperature", None, "at most 100"),
    (overrides(temperature=1e-9), "overrides.temperature", None, "0 or at least 0.001"),
    (overrides(temperature=float("nan")), "overrides.temperature", None, "finite"),
    (overrides(temperature="@1e999"), "overrides.temperature", None, "finite"),
    (overrides(top_k=-1), "overrides.top_k", None, "at least 0"),
    (overrides(top_k=1025), "overrides.top_k", None, "at most 1024"),
    (overrides(top_p=0), "overrides.top_p", None, "greater than 0"),
    (overrides(top_p=1.01), "overrides.top_p", None, "at most 1"),
    (overrides(top_p=float("nan")), "overrides.top_p", None, "finite"),
    (overrides(sample_count=0), "overrides.sample_count", None, "at least 1"),
    (overrides(sample_count=65), "overrides.sample_count", None, "at most 64"),
    (overrides(seed=-1), "overrides.seed", None, "at least 0"),
    (overrides(seed=2**53), "overrides.seed", None, f"at most {2**53 - 1}"),
    (overrides(seed="@" + "9" * 400), "overrides.seed", None, "at most"),
    (body(quantile_levels=[0.5, 0]), "quantile_levels", 1, "greater than 0"),
    (body(quantile_levels=[1]), "quantile_levels", 0, "less than 1"),
    (body(quantile_levels=[float("nan")]), "quantile_levels", 0, "finite"),
    (body(levels=[105.0]), "levels", None, '"summary": true beside them'),
    (body(summary=True, levels=[105.0, 105]), "levels", 1, "given once"),
    (body(summary=True, levels=[0]), "levels", 0, "greater than 0"),
    (body(summary=True, levels=[2e17]), "levels", 0, "at most 1e+17"),
    (overrides(sample_count=1) | {"summary": True}, "overrides.sample_count", None, "at least 2"),
    (body(quantile_levels=[0.5, 0.1, 0.5]), "quantile_levels", 2, "given once"),
    (body(quantile_levels=[n / 22 for n in range(1, 22)]), "quantile_levels", None, "at most 20"),
    (body(series_id=""), "series_id", None, "at least 1 characters long"),
    (body(series_id="x" * 129), "series_id", None, "at most 128 characters long"),
]


@pytest.mark.parametrize(("request_", "field", "index", "constraint"), VALUES)
async def test_a_broken_value_rule_is_invalid_input(
    client: httpx.AsyncClient,
    request_: dict[str, Any],
    field: str,
    index: int | None,
    constraint: str,
) -> None:
    alone = await client.post(SINGLE, content=encode(request_))
    second = await client.post(BATCH, content=encode({"items": [body(), request_]}))
    for response in (alone, second):
        assert response.status_code == 400, response.text
        assert response.json()["error"]["code"] == "INVALID_INPUT"
    found = alone.json()["error"]["details"][0]
    assert (found["field"], found["index"]) == (field, index)
    assert constraint in found["constraint"]
    assert field in alone.json()["error"]["message"]
    assert second.json()["error"]["details"][0] == found | {"item": 1}


# request, field, index, part of the constraint
TYPES: list[tuple[Any, str, int | None, str]] = [
    (with_candle(2, open="1.5"), "candles.open", 2, "a number"),
    (with_candle(2, open=True), "candles.open", 2, "a number"),
    (with_candle(2, open=None), "candles.open", 2, "a number"),
    (with_candle(2, volume="1"), "candles.volume", 2, "a number"),
    (with_candle(2, adjusted=1), "candles.adjusted", 2, "no such key"),
    (columnar(open=[1.0, "1", 1.0, 1.0]), "candles.open", 1, "a number"),
    (columnar(open=[1.0, None, 1.0, 1.0]), "candles.open", 1, "a number"),
    (columnar(open=1.0), "candles.open", None, "an array"),
    (columnar(adjusted=[1.0]), "candles.adjusted", None, "no such key"),
    (body(candles={"open": [1.0]}), "candles.high", None, "given"),
    (body(candles=[{"open": 1.0}]), "candles.high", 0, "given"),
    (body(candles=[[1, 2, 3, 4]]), "candles", 0, "an object"),
    (body(candles="x"), "candles", None, "an array of candles or an object of columns"),
    (body(timestamps=[1, 2, 3, 4]), "timestamps", 0, "a string in ISO 8601"),
    (body(timestamps="2025-01-01"), "timestamps", None, "an array"),
    (body(prediction_timestamps=[1.5], horizon=None), "prediction_timestamps", 0, "a string"),
    (body(horizon="2"), "horizon", None, "an integer"),
    (body(horizon=2.0), "horizon", None, "an integer"),
    (body(horizon=True), "horizon", None, "an integer"),
    (body(freq=5), "freq", None, "a string"),
    (body(calendar=["XNYS"]), "calendar", None, "a string"),
    (body(series_id=7), "series_id", None, "a string"),
    (body(overrides=[]), "overrides", None, "an object"),
    (overrides(temperature="1"), "overrides.temperature", None, "a number"),
    (overrides(top_k=1.5), "overrides.top_k", None, "an integer"),
    (overrides(seed=False), "overrides.seed", None, "an integer"),
    (overrides(beam_width=4), "overrides.beam_width", None, "no such key"),
    (body(quantile_levels=0.5), "quantile_levels", None, "an array"),
    (body(quantile_levels=["0.5"]), "quantile_levels", 0, "a number"),
    (body(return_samples="yes"), "return_samples", None, "true or false"),
    (body(repair=1), "repair", None, "true or false"),
    (body(pred_len=3), "pred_len", None, "no such key"),
    (body(**{"k" * 200: 3}), "k" * 64, None, "no such key"),
    (body() | {"timestamps": None}, "timestamps", None, "an array"),
    ({"timestamps": stamps(4)}, "candles", None, "given"),
    ({"candles": candles(4)}, "timestamps", None, "given"),
]


@pytest.mark.parametrize(("request_", "field", "index", "constraint"), TYPES)
async def test_a_wrong_type_or_key_is_a_validation_error(
    client: httpx.AsyncClient, request_: Any, field: str, index: int | None, constraint: str
) -> None:
    alone = await client.post(SINGLE, json=request_)
    second = await client.post(BATCH, json={"items": [body(), {"series_id": "b"} | request_]})
    for response in (alone, second):
        assert response.status_code == 422, response.text
        assert response.json()["error"]["code"] == "VALIDATION_ERROR"
    found = alone.json()["error"]["details"][0]
    assert (found["field"], found["index"]) == (field, index)
    assert constraint in found["constraint"]
    assert second.json()["error"]["details"][0] == found | {"item": 1}


@pytest.mark.parametrize(
    ("request_", "status", "field", "constraint"),
    [
        ({"items": []}, 400, "items", "at least 1 long"),
        ({"items": [body()] * 65}, 400, "items", "at most 64 long"),
        ({"items": [body(overrides={"sample_count": 63}, horizon=8)] * 2}, 400, "", "at most 1000"),
        ({"items": body()}, 422, "items", "an array"),
        ({"items": [1]}, 422, "items", "an object"),
        ({"items": [body(series_id=None)]}, 422, "series_id", "given"),
        ({"items": [body()], "series": 1}, 422, "series", "no such key"),
        ({}, 422, "items", "given"),
        ([body()], 422, "body", "an object"),
    ],
)
async def test_rules_of_a_batch(
    client: httpx.AsyncClient, request_: Any, status: int, field: str, constraint: str
) -> None:
    response = await client.post(BATCH, json=request_)
    assert response.status_code == status, response.text
    found = response.json()["error"]["details"][0]
    assert found["field"] == (field or "overrides.sample_count")
    assert constraint in found["constraint"]


async def test_the_work_of_one_request_is_bounded(client: httpx.AsyncClient) -> None:
    response = await client.post(SINGLE, json=body(horizon=100, overrides={"sample_count": 11}))
    assert response.status_code == 400
    message = response.json()["error"]["message"]
    assert message == (
        "overrides.sample_count must be at most 1000 when multiplied by the horizon"
        " and summed over the request (KRONOS_MAX_DECODE_STEPS); found 1100: ask for fewer"
        " samples or steps."
    )


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"not json",
        b"\xff\xfe",
        encode(body()).decode().encode("utf-16"),
        encode(body()).decode().encode("utf-16-be"),
        b'{"series_id": "\xff"}',
        b'{"series_id": "\\ud800"}',
        b"{} {}",
        b"\xef\xbb\xbf\xef\xbb\xbf{}",
        b"'single'",
        b"[" * 300 + b"]" * 300,
        b'{"a":' * 5000 + b"1" + b"}" * 5000,
        b'{"horizon": 1' + b"0" * 5000 + b"}",
        gzip.compress(b"{}", mtime=0),
    ],
)
@pytest.mark.parametrize("path", [SINGLE, BATCH])
async def test_what_is_not_json_is_malformed(
    client: httpx.AsyncClient, path: str, content: bytes
) -> None:
    response = await client.post(path, content=content)
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (400, "MALFORMED_JSON"), response.text
    assert error["details"][0]["field"] == "body"
    assert error["request_id"] == response.headers["X-Request-ID"]


@pytest.mark.parametrize("content", [b"NaN", b"Infinity", b"null", b"1", b'"x"', b"[]"])
async def test_json_that_is_no_object_is_a_validation_error(
    client: httpx.AsyncClient, content: bytes
) -> None:
    response = await client.post(SINGLE, content=content)
    assert response.status_code == 422
    assert response.json()["error"]["message"].startswith("body must be an object; ")


async def test_an_item_that_is_no_object_is_named_once(client: httpx.AsyncClient) -> None:
    response = await client.post(BATCH, json={"items": [body(), 1]})
    assert response.status_code == 422
    assert response.json()["error"]["message"] == "items[1] must be an object; found a number."


async def test_what_is_not_finite_is_told_once(client: httpx.AsyncClient) -> None:
    for value in ("1e39", "1e999", "-Infinity", "NaN"):
        content = encode(with_candle(1, open=123456)).replace(b"123456", value.encode())
        error = (await client.post(SINGLE, content=content)).json()["error"]
        assert error["message"] == "candles.open[1] must be finite in float32."


async def test_a_byte_order_mark_is_taken(client: httpx.AsyncClient) -> None:
    mark = codecs.BOM_UTF8
    assert (await client.post(SINGLE, content=mark + encode(body()))).status_code == 200
    items = encode({"items": [body()]})
    assert (await client.post(BATCH, content=mark + items)).status_code == 200


async def test_utf_16_is_called_by_its_name(client: httpx.AsyncClient) -> None:
    response = await client.post(SINGLE, content=encode(body()).decode().encode("utf-16"))
    assert "must be UTF-8" in response.json()["error"]["message"]


TWO_OPENS = encode(with_candle(2, open=123456)).replace(b"123456", b'1, "open": 2')
DOUBLE = encode(body(4)).replace(b'"horizon": 2', b'"horizon": 2, "horizon": 3')


@pytest.mark.parametrize(
    ("path", "content", "field", "index", "item"),
    [
        (SINGLE, DOUBLE, "horizon", None, None),
        (SINGLE, DOUBLE.replace(b'"horizon": 3', b'"h\\u006frizon": 3'), "horizon", None, None),
        (SINGLE, DOUBLE.replace(b'"horizon": 3', b'"horizon" : 3'), "horizon", None, None),
        (BATCH, b'{"items": [%s, %s]}' % (encode(body(4)), DOUBLE), "horizon", None, 1),
        (BATCH, b'{"\\u0069tems": [%s, %s]}' % (encode(body(4)), DOUBLE), "horizon", None, 1),
        (BATCH, b'{"items": [], "items": [%s]}' % encode(body(4)), "items", None, None),
        (SINGLE, TWO_OPENS, "candles.open", 2, None),
    ],
)
async def test_a_key_that_stands_twice_is_refused(
    client: httpx.AsyncClient,
    path: str,
    content: bytes,
    field: str,
    index: int | None,
    item: int | None,
) -> None:
    response = await client.post(path, content=content)
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (400, "INVALID_INPUT"), response.text
    (detail,) = error["details"]
    assert (detail["field"], detail["index"], detail.get("item")) == (field, index, item)
    assert "twice in one object" in error["message"]


@pytest.mark.parametrize(
    "request_",
    [
        body(series_id={"x": "s3cr3t"}),
        body(freq="s3cr3t"),
        body(calendar="s3cr3t"),
        body(timestamps=["s3cr3t", *stamps(3)]),
        with_candle(1, open="s3cr3t"),
        "s3cr3t",
        overrides(seed="@777777777777777777777"),
    ],
)
async def test_values_are_not_echoed(client: httpx.AsyncClient, request_: Any) -> None:
    response = await client.post(SINGLE, content=encode(request_))
    assert response.status_code in (400, 422)
    assert "s3cr3t" not in response.text
    assert "7777777" not in response.text


async def test_several_breaches_are_told_at_once_up_to_a_bound(client: httpx.AsyncClient) -> None:
    listed = [candle | {"high": float("nan")} for candle in candles(50)]
    request_ = body(candles=listed, timestamps=stamps(2) * 25, freq="x")
    error = (await client.post(SINGLE, content=encode(request_))).json()["error"]
    assert len(error["details"]) == 20
    assert error["message"].endswith("(and 73 more).")


@pytest.mark.parametrize(
    "content",
    [
        b'{"items": [' + b"1," * 40_000 + b"1]}",
        b'{"candles": [' + b"[]," * 40_000 + b"[]]}",
        b'{"items": [{' + b",".join(b'"%d": 1' % n for n in range(40_000)) + b"}]}",
    ],
)
@pytest.mark.parametrize("path", [SINGLE, BATCH])
async def test_a_body_of_too_many_values_is_refused_unread(
    client: httpx.AsyncClient, path: str, content: bytes
) -> None:
    error = (await client.post(path, content=content)).json()["error"]
    assert error["code"] == "INVALID_INPUT"
    assert error["details"][0]["constraint"] == "of at most 32768 values"


async def test_a_body_of_too_many_errors_lists_none(client: httpx.AsyncClient) -> None:
    content = b"{" + b",".join(b'"%d": 1' % n for n in range(2000)) + b"}"
    error = (await client.post(SINGLE, content=content)).json()["error"]
    assert error["code"] == "VALIDATION_ERROR"
    assert error["details"] == [
        {"field": "body", "index": None, "constraint": "valid; found 2002 errors in it"}
    ]


@pytest.mark.parametrize(
    ("changes", "field", "hint"),
    [
        ({"temperature": 1}, "temperature", "did you mean overrides.temperature?"),
        ({"overrides": {"T": 1}}, "overrides.T", "did you mean overrides.temperature?"),
        ({"overrides": {"seeds": 1}}, "overrides.seeds", "did you mean overrides.seed?"),
        ({"x_timestamp": []}, "x_timestamp", "did you mean timestamps?"),
        ({"quantile_level": []}, "quantile_level", "did you mean quantile_levels?"),
    ],
)
async def test_an_unknown_key_is_told_with_the_nearest(
    client: httpx.AsyncClient, changes: dict[str, Any], field: str, hint: str
) -> None:
    error = (await client.post(SINGLE, json=body() | changes)).json()["error"]
    assert error["code"] == "VALIDATION_ERROR"
    assert error["details"][0]["field"] == field
    assert error["details"][0]["constraint"].endswith(hint)


async def test_all_wrong_types_are_counted_and_the_first_listed(client: httpx.AsyncClient) -> None:
    """Prices as strings, as exchanges send them: each column is listed, and all are counted."""
    texts = {name: [str(value) for value in column] for name, column in columns(300).items()}
    request = body(300, candles=texts, horizon="2")
    error = (await client.post(SINGLE, json=request)).json()["error"]
    assert error["code"] == "VALIDATION_ERROR"
    assert error["message"].endswith(f"found a string (and {5 * 300} more).")
    assert len(error["details"]) == 20
    few = body(candles=columns() | {"open": ["1"] * 4, "close": ["1"] * 4}, horizon="2")
    details = (await client.post(SINGLE, json=few)).json()["error"]["details"]
    assert {detail["field"] for detail in details} == {"candles.open", "candles.close", "horizon"}
    assert len(details) == 9


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        (body(timestamps=[1, 2, 3, 4]), "is 2025-06-02T09:30:00Z; found a number"),
        (body(candles=[[1, 2, 3, 4]]), 'an object such as {"open": 100, '),
        (
            columnar(open={"0": 1.0}),
            'an array of numbers, as of pandas\' df.to_dict("list")',
        ),
        (body(candles={"columns": [], "data": []}), 'pandas: send df.to_dict("list")'),
        (columnar(Open=[1.0] * 4), "no such key is known; did you mean candles.open?"),
        (columnar(timestamps=[1] * 4), "timestamps are an array beside candles"),
        (columnar(vol=[1.0] * 4), "did you mean candles.volume?"),
        (columnar(beta=[1.0] * 4), "known are open, high, low, close, volume, amount"),
        (body(df=[]), "no such key is known; did you mean candles?"),
        (body(open=[1]), "did you mean candles.open?"),
        ({"items": [body()]}, "several series are for /v1/predict/batch"),
        (body(zzzzz=1), "known are series_id, candles, timestamps, "),
        (overrides(zzzzz=1), "known are pred_len, temperature, "),
        ([body()], 'several series are {"items": [...]} for /v1/predict/batch; found an array'),
    ],
)
async def test_a_wrong_type_or_key_comes_with_what_is_accepted(
    client: httpx.AsyncClient, request_: Any, told: str
) -> None:
    error = (await client.post(SINGLE, json=request_)).json()["error"]
    assert told in error["message"]


async def test_one_series_for_a_batch_is_sent_to_the_other_route(
    client: httpx.AsyncClient,
) -> None:
    error = (await client.post(BATCH, json=body())).json()["error"]
    assert error["code"] == "VALIDATION_ERROR"
    assert "one series is for /v1/predict/single" in error["message"]


async def test_different_lengths_come_with_both_counts(client: httpx.AsyncClient) -> None:
    error = (await client.post(SINGLE, json=body(timestamps=stamps(3)))).json()["error"]
    assert error["message"] == "timestamps must be as long as candles (4); found 3."
    assert error["details"] == [
        {
            "field": "timestamps",
            "index": None,
            "constraint": "as long as candles (4); found 3",
            "candles_count": 4,
            "timestamps_count": 3,
        }
    ]


async def test_long_unknown_key_is_cut_before_it_is_compared(client: httpx.AsyncClient) -> None:
    answer = await client.post(SINGLE, json=body() | {"temperature" + "x" * 100_000: 1})
    assert answer.status_code == 422
    assert len(answer.content) < 1000
