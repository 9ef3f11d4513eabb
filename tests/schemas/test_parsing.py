"""From bodies to series: what HTTP does not show."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import numpy as np
import pytest

from kronos_api.errors import KronosError
from kronos_api.schemas.parsing import Defaults, Limits, RequestParser
from tests.web import START, body, candles, columns, encode, stamps

PARSER = RequestParser(Defaults(120, 1.0, 0, 0.9, 1), Limits(64, 64, 32_768))


def test_both_forms_are_the_same_candles() -> None:
    (rows,) = PARSER.single(encode(body(9)))
    (columnar,) = PARSER.single(encode(body(9, candles=columns(9))))
    np.testing.assert_array_equal(rows.candles, columnar.candles)
    assert rows.candles.shape == (9, 6)
    assert rows.candles.dtype == np.float32
    first = candles(9)[0]
    prices = [first[name] for name in ("open", "high", "low", "close")]
    expected: list[float] = [*prices, 10.0, 10.0 * float(np.mean(prices))]
    np.testing.assert_allclose(rows.candles[0], expected, rtol=1e-6)


def test_the_largest_values_have_finite_statistics() -> None:
    listed = [
        dict.fromkeys(("open", "high", "low", "close"), 1e17 if n % 2 else 1e-40)
        for n in range(2048)
    ]
    for candle in listed:
        candle |= {"volume": 1e17 if candle["open"] > 1 else 0.0, "amount": 1e17}
    (series,) = PARSER.single(encode(body(2048, candles=listed)))
    assert np.isfinite(series.candles).all()
    assert np.isfinite(series.candles.mean(axis=0)).all()
    assert np.isfinite(series.candles.std(axis=0)).all()


def test_error_keeps_nothing_of_the_body() -> None:
    with pytest.raises(KronosError) as caught:
        PARSER.single(b'{"candles": "s3cr3t"}')
    assert caught.value.__cause__ is caught.value.__context__ is None


async def test_a_large_batch_lets_the_event_loop_in_between_its_items() -> None:
    """Read as one, it would hold the interpreter from its first byte to its last."""
    start = START - timedelta(days=30)
    item = encode(body(2048, timestamps=stamps(2048, start)))
    content = b'{"items": [' + b",".join([item] * 12) + b"]}"
    reading = asyncio.create_task(asyncio.to_thread(PARSER.batch, content))
    turns = 0
    while not reading.done():
        await asyncio.sleep(0.001)
        turns += 1
    assert len(await reading) == 12
    assert turns >= 12
