"""polars frames. Run where polars is installed: in CI by the test of the built wheel."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.client_python.service import FIELDS, Service

pl = pytest.importorskip("polars", reason="polars is installed by test_wheel.py only")

START = datetime(2025, 3, 5)
NEW_YORK = "America/New_York"


def history(times: Any, **columns: Any) -> Any:
    prices = {"open": 100.0, "high": 102, "low": 99.0, "close": 101.0}
    made = {"timestamps": times} | {name: [value] * len(times) for name, value in prices.items()}
    return pl.DataFrame(made | columns)


def daily(rows: int = 4) -> Any:
    return pl.Series([START + timedelta(days=number) for number in range(rows)])


def predict(frame: Any, **options: Any) -> Any:
    chosen: dict[str, Any] = {"horizon": 2, "freq": "1D"} | options
    return Service().call("sync", "predict", frame, **chosen)


def test_frame_of_times_comes_back() -> None:
    result = predict(history(daily()), quantile_levels=[0.1], return_samples=True)
    names = ["", "-q-0.1", "-s-0", "-s-1"]
    assert result.columns == ["timestamps", *(f"{field}{n}" for n in names for field in FIELDS)]
    assert result["timestamps"].to_list() == [datetime(2025, 3, 9), datetime(2025, 3, 10)]
    assert result["close"].to_list() == [101.0, 101.0]


@pytest.mark.parametrize("zone", ["UTC", NEW_YORK])
@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
def test_time_zone_and_resolution_are_kept(zone: str, unit: str) -> None:
    times = daily(5).dt.replace_time_zone(zone).dt.cast_time_unit(unit)
    result = predict(history(times))
    assert result["timestamps"].dtype == times.dtype
    local = result["timestamps"].dt.replace_time_zone(None)
    assert local.to_list() == [datetime(2025, 3, 10), datetime(2025, 3, 11)]


def test_dates_come_back_as_dates_or_as_times_where_steps_are_shorter() -> None:
    dates = daily().cast(pl.Date)
    assert predict(history(dates))["timestamps"].dtype == pl.Date
    service = Service()
    hours = ["2025-03-08T01:00", "2025-03-08T02:00"]
    frame = history(dates)
    result = service.call("sync", "predict", frame, prediction_timestamps=pl.Series(hours))
    assert service.bodies[0]["timestamps"][-1] == "2025-03-08"
    assert result["timestamps"].to_list() == [datetime(2025, 3, 8, 1), datetime(2025, 3, 8, 2)]


def test_times_as_text_are_passed_through() -> None:
    result = predict(history(["2025-03-05", "2025-03-06"]))
    assert result["timestamps"].to_list() == ["2025-03-07", "2025-03-08"]


def test_future_may_be_given_as_times() -> None:
    frame = history(daily().dt.replace_time_zone(NEW_YORK))
    future = frame["timestamps"] + timedelta(days=10)
    service = Service()
    result = service.call("sync", "predict", frame, prediction_timestamps=future)
    assert service.bodies[0]["prediction_timestamps"][0] == "2025-03-15T01:00:00-04:00"
    assert result["timestamps"].to_list() == future.to_list()


def test_long_frame_is_forecast_in_the_order_of_its_series() -> None:
    frame = pl.concat([history(daily(), code=[code] * 4) for code in (7203, 6758)])
    frame = frame.sort("timestamps", maintain_order=True)
    service = Service()
    options: dict[str, Any] = {"id_column": "code", "horizon": 2, "freq": "1D"}
    result = service.call("sync", "predict_many", frame, **options)
    assert result.columns == ["code", "timestamps", *FIELDS]
    assert result["code"].to_list() == [7203, 7203, 6758, 6758]
    forecasts = service.call("sync", "forecast_many", frame, **options)
    assert list(forecasts) == [7203, 6758]
    assert forecasts[6758].frame.columns == ["timestamps", *FIELDS]
    assert forecasts[6758].metadata["seed"] == 7
    assert service.call("sync", "predict_many", frame.clear(), **options).is_empty()


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (history(daily()).drop("timestamps"), "no timestamps in the frame"),
        (history([1, 2]), "'timestamps' holds Int64, not timestamps"),
        (history([START, None]), "a timestamp is missing"),
        (history(daily(2), volume=[1.0, None]), "volume is None in row 1"),
    ],
)
def test_frame_without_a_series_is_refused_before_it_is_sent(frame: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        predict(frame)


@pytest.mark.parametrize(
    ("ids", "message"), [(None, "no column 'series_id'"), (["a", None], "has missing values")]
)
def test_long_frame_without_ids_is_refused(ids: Any, message: str) -> None:
    frame = history(daily(2), **({} if ids is None else {"series_id": ids}))
    with pytest.raises(ValueError, match=message):
        Service().call("sync", "predict_many", frame)
