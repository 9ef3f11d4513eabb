"""Data frames: checked candles and times of a history, and frames of a forecast."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from kronos_api.errors import InvalidInput
from kronos_api.forecast import Forecast
from kronos_api.frames import forecast_frame, future_index, read_candles
from kronos_api.timeseries import parse_timestamps
from tests.web import candles, stamps


def frame(rows: int = 4) -> pd.DataFrame:
    """A random walk, indexed by time."""
    return pd.DataFrame(candles(rows), index=pd.DatetimeIndex(stamps(rows), name="when"))


def test_columns_may_be_upper_case_and_in_any_order() -> None:
    values, history = read_candles(frame())
    turned = frame().rename(columns=str.title).iloc[:, ::-1]
    np.testing.assert_array_equal(read_candles(turned)[0], values)
    assert values.shape == (4, 6)
    assert list(history.texts) == [time.isoformat() for time in frame().index]


def test_other_columns_are_ignored() -> None:
    values, _ = read_candles(frame().assign(symbol="X"))
    np.testing.assert_array_equal(values, read_candles(frame())[0])


def test_missing_value_is_named_with_its_row() -> None:
    given = frame()
    given["close"] = given["close"].where(np.arange(4) != 2)
    with pytest.raises(InvalidInput, match=r"close\[2\] must be finite"):
        read_candles(given)


def test_history_longer_than_the_limit_names_the_remedy() -> None:
    long = pd.concat([frame()] * 600)
    with pytest.raises(InvalidInput, match=r"found 2400: pass candles.tail\(2048\)"):
        read_candles(long)


@pytest.mark.parametrize(
    ("zone", "offset"), [("America/New_York", "Z"), (None, "Z"), (None, "+09:00"), (None, "")]
)
def test_index_of_a_forecast_keeps_zone_and_name(zone: str | None, offset: str) -> None:
    future = parse_timestamps([f"2025-03-03T10:00{offset}"], "timestamps")
    if zone is None:
        candles = frame() if offset else frame().tz_localize(None)
        index = future_index(candles.reset_index(names="timestamps"), future)
        assert index.name == "timestamps"
    else:
        index = future_index(frame().tz_convert(zone), future)
        assert index.name == "when"
        assert str(index.tz) == zone
    assert index[0] == pd.Timestamp(f"2025-03-03T10:00{offset}")


def test_zone_of_an_index_is_not_that_of_a_column_of_times() -> None:
    candles = frame().tz_convert("America/New_York")
    candles = candles.assign(timestamps=pd.DatetimeIndex(candles.index).tz_localize(None))
    future = parse_timestamps(["2025-03-03T10:00"], "timestamps")
    assert future_index(candles, future)[0] == pd.Timestamp("2025-03-03T10:00")


def test_frame_of_a_forecast_has_quantiles_after_the_mean() -> None:
    index = pd.date_range("2025-01-01", periods=2)
    mean = np.arange(12, dtype=np.float32).reshape(2, 6)
    found = forecast_frame(Forecast(mean, {0.5: mean + 1}, None, 4, 0), index)
    assert list(found.columns[:7]) == [
        *("open", "high", "low", "close", "volume", "amount", "open-q-0.5")
    ]
    assert found["close-q-0.5"].tolist() == [4, 10]


def test_frame_of_sample_paths_is_indexed_by_path_and_time() -> None:
    index = pd.date_range("2025-01-01", periods=2)
    samples = np.arange(36, dtype=np.float32).reshape(3, 2, 6)
    found = forecast_frame(Forecast(samples[0], {}, samples, 4, 0), index)
    assert found.loc[(2, index[1]), "open"] == 30
