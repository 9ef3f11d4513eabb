"""A series has one forecast, in every form of a file and in every unit of price."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kronos_api.cli.tables import read_history
from kronos_api.config import Settings
from kronos_api.engine.request import ForecastRequest
from kronos_api.engine.sampling import SamplingParams
from kronos_api.files.history import History
from kronos_api.lifecycle import Checkpoints
from kronos_api.predictor import AsyncPredictor
from kronos_api.timeseries import infer_frequency
from kronos_api.timeseries.features import FIELDS, Floats, time_features

ROWS, HORIZON = 24, 3
HEADERS = {
    "own": ("timestamps", "open", "high", "low", "close", "volume"),
    "yfinance": ("Date", "Open", "High", "Low", "Close", "Volume"),
    "akshare": ("日期", "开盘", "最高", "最低", "收盘", "成交量"),
    "tushare": ("trade_date", "open", "high", "low", "close", "vol"),
    "Binance": ("open_time", "open", "high", "low", "close", "volume"),
    "MetaTrader": ("<DATE>", "<OPEN>", "<HIGH>", "<LOW>", "<CLOSE>", "<TICKVOL>"),
    "Alpha Vantage": ("timestamp", "1. open", "2. high", "3. low", "4. close", "5. volume"),
    "German": ("Datum", "Eröffnung", "Hoch", "Tief", "Schlusskurs", "Stück"),
    "Japanese": ("日付", "始値", "高値", "安値", "終値", "出来高"),
}
DATES = ("%Y-%m-%d", "%Y/%m/%d", "%Y%m%d", "%d.%m.%Y", "%Y-%m-%d 00:00:00", "%b %d, %Y")


@dataclass(frozen=True)
class Form:
    """How a file is written; `power` of ten is the unit of price."""

    header: str
    separator: str
    comma: bool
    thousands: bool
    encoding: str
    newline: str
    date: str
    newest_first: bool
    power: int


forms = st.builds(
    Form,
    header=st.sampled_from(sorted(HEADERS)),
    separator=st.sampled_from([",", ";", "\t", "|"]),
    comma=st.booleans(),
    thousands=st.booleans(),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "gb18030"]),
    newline=st.sampled_from(["\n", "\r\n"]),
    date=st.sampled_from(DATES),
    newest_first=st.booleans(),
    power=st.integers(-9, 9),
)
PLAIN = Form("own", ",", False, False, "utf-8", "\n", DATES[0], False, 0)


def walk(seed: int) -> dict[str, list[Decimal]]:
    """A random walk in steps of a hundredth, of a deviation far above the model's epsilon."""
    numbers = np.random.default_rng(seed)
    close = 500_000 + numbers.integers(-9_000, 9_000, ROWS).cumsum()
    opened = np.concatenate([[500_000], close[:-1]])
    edge = numbers.integers(1, 3_000, (2, ROWS))
    columns = {
        "open": opened,
        "high": np.maximum(opened, close) + edge[0],
        "low": np.minimum(opened, close) - edge[1],
        "close": close,
    }
    prices = {name: [Decimal(int(cents)) / 100 for cents in columns[name]] for name in columns}
    return prices | {"volume": [Decimal(int(size)) for size in numbers.integers(1000, 9999, ROWS)]}


def number(value: Decimal, form: Form) -> str:
    """`value` with two decimals at least: 500,000 alone could be a fraction of a semicolon file."""
    exponent = value.as_tuple().exponent
    places = max(2, -exponent if isinstance(exponent, int) else 0)
    text = f"{value:{',' if form.thousands else ''}.{places}f}"
    if form.comma:
        text = text.translate(str.maketrans(",.", ".,"))
    return f'"{text}"' if form.separator in text else text


def written(columns: dict[str, list[Decimal]], form: Form) -> bytes:
    """The series as a file in `form`."""
    lines = []
    for row in range(ROWS):
        day = f"{datetime(2024, 3, 1) + timedelta(days=row):{form.date}}"
        cells = [f'"{day}"' if "," in day else day]
        for name in FIELDS[:5]:
            scale = 0 if name == "volume" else form.power
            cells.append(number(columns[name][row].scaleb(scale), form))
        lines.append(form.separator.join(cells))
    header = form.separator.join(HEADERS[form.header])
    text = form.newline.join([header, *(reversed(lines) if form.newest_first else lines)])
    return text.encode(form.encoding)


@pytest.fixture(scope="module")
def forecast() -> Iterator[Callable[[History], Floats]]:
    """The greedy forecast of the bundled checkpoint: float32 [horizon, 6]."""
    checkpoints = Checkpoints(Settings())
    checkpoints.find()
    with asyncio.Runner() as runner:
        predictor = AsyncPredictor(checkpoints.load)
        runner.run(predictor.start())
        runner.run(predictor.ready())

        def predict(history: History) -> Floats:
            stamps = history.timestamps
            future = infer_frequency(stamps).following(stamps, HORIZON)
            request = ForecastRequest(
                candles=history.candles,
                history_time_features=time_features(stamps.datetimes),
                future_time_features=time_features(future.datetimes),
                params=SamplingParams(temperature=0, top_k=0, top_p=1, sample_count=1, seed=0),
                clip=5.0,
            )
            return runner.run(predictor.predict(request, timeout=60)).mean

        yield predict
        runner.run(predictor.stop())


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), form=forms)
def test_every_form_and_unit_of_a_series_has_its_forecast(
    tmp_path_factory: pytest.TempPathFactory,
    forecast: Callable[[History], Floats],
    seed: int,
    form: Form,
) -> None:
    columns, path = walk(seed), tmp_path_factory.mktemp("forms") / "candles.csv"
    path.write_bytes(written(columns, PLAIN))
    plain = read_history(path, ROWS)
    path.write_bytes(written(columns, form))
    history = read_history(path, ROWS)
    assert [text[:10] for text in history.timestamps.texts] == plain.timestamps.texts
    # Volume keeps its unit; amount, their product, has that of price.
    unit = np.array([10.0**form.power] * 4 + [1.0, 10.0**form.power])
    np.testing.assert_allclose(history.candles, plain.candles * unit, rtol=3e-7)
    np.testing.assert_allclose(forecast(history), forecast(plain) * unit, rtol=1e-4)
