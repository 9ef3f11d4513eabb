"""What of a pandas frame is sent, and how the forecast comes back."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.client_python.service import FIELDS, Service, history, long_history

NEW_YORK = "America/New_York"


def predict(frame: Any, **options: Any) -> pd.DataFrame:
    result: pd.DataFrame = Service().call("sync", "predict", frame, **{"horizon": 2} | options)
    return result


def sent(frame: Any, **options: Any) -> dict[str, Any]:
    service = Service()
    service.call("sync", "predict", frame, **options)
    (body,) = service.bodies
    assert isinstance(body, dict)
    return body


def test_index_of_times_comes_back() -> None:
    frame = history().rename_axis("when")
    result = predict(frame)
    assert list(result.columns) == list(FIELDS)
    assert list(result.index) == list(pd.date_range("2025-03-03 10:00", periods=2, freq="15min"))
    assert result.index.name == "when"
    assert result.index.dtype == frame.index.dtype
    assert list(pd.concat([frame, result])["close"]) == [101.0] * 6


@pytest.mark.parametrize("name", ["timestamps", "Timestamp", "Date"])
def test_column_of_times_comes_back(name: str) -> None:
    frame = history().rename_axis(name).reset_index()
    result = predict(frame)
    assert list(result.columns) == [name, *FIELDS]
    assert list(result[name]) == list(pd.date_range("2025-03-03 10:00", periods=2, freq="15min"))
    assert result[name].dtype == frame[name].dtype
    assert list(result.index) == [0, 1]


def test_times_as_text_are_passed_through() -> None:
    texts = ["2025-03-03 09:00Z", "2025-03-03 09:15Z"]
    frame = history(2).reset_index(drop=True).assign(timestamps=texts)
    assert sent(frame)["timestamps"] == texts
    result = predict(frame)
    assert list(result["timestamps"]) == ["2025-03-03T09:30:00+00:00", "2025-03-03T09:45:00+00:00"]
    assert result["timestamps"].dtype == frame["timestamps"].dtype


@pytest.mark.parametrize("zone", ["UTC", NEW_YORK, "Asia/Kolkata", "+05:30"])
@pytest.mark.parametrize("indexed", [True, False])
def test_time_zone_is_kept(zone: str, indexed: bool) -> None:
    frame = history(tz=zone)
    result = predict(frame if indexed else frame.rename_axis("timestamps").reset_index())
    times = result.index if indexed else result["timestamps"]
    expected = pd.date_range("2025-03-03 10:00", periods=2, freq="15min", tz=zone)
    assert list(times) == list(expected)
    assert times.dtype == frame.index.dtype


def test_each_time_is_sent_with_its_own_offset() -> None:
    body = sent(history(2, start="2025-03-09 01:45", freq="15min", tz=NEW_YORK))
    assert body["timestamps"] == ["2025-03-09T01:45:00-05:00", "2025-03-09T03:00:00-04:00"]


@pytest.mark.parametrize("start", ["2025-03-04", "2025-10-28"])
def test_daily_bars_keep_their_local_time_when_the_clocks_change(start: str) -> None:
    frame = history(5, start=start, freq="1D", tz=NEW_YORK)
    result = predict(frame, horizon=4, freq="1D")
    expected = pd.date_range(start, periods=9, freq="1D", tz=NEW_YORK)[5:]
    assert list(result.index) == list(expected)


def test_shorter_bars_are_instants_when_the_clocks_change() -> None:
    frame = history(4, start="2025-03-09 01:00", freq="15min", tz=NEW_YORK)
    result = predict(frame, horizon=2)
    expected = pd.date_range("2025-03-09 03:00", periods=2, freq="15min", tz=NEW_YORK)
    assert list(result.index) == list(expected)


def test_local_time_that_does_not_exist_moves_on() -> None:
    frame = history(2, start="2025-03-07 02:30", freq="1D", tz=NEW_YORK)
    result = predict(frame, horizon=2, freq="1D")
    assert [str(time) for time in result.index] == [
        "2025-03-09 03:30:00-04:00",
        "2025-03-10 02:30:00-04:00",
    ]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_resolution_of_times_is_kept(unit: str) -> None:
    frame = history()
    frame.index = pd.DatetimeIndex(frame.index).as_unit(unit)  # type: ignore[arg-type]
    assert predict(frame).index.dtype == f"datetime64[{unit}]"


def test_parts_of_a_second_are_written_alike() -> None:
    body = sent(history(2, freq="500ms"))
    assert body["timestamps"] == ["2025-03-03T09:00:00.000000", "2025-03-03T09:00:00.500000"]


def test_names_of_columns_may_have_any_case_and_others_are_ignored() -> None:
    frame = history().rename(columns=str.title).assign(Dividends="none")
    body = sent(frame)
    assert list(body["candles"]) == ["open", "high", "low", "close", "volume"]
    assert list(predict(frame).columns) == list(FIELDS)


def test_numbers_are_sent_as_they_are() -> None:
    frame = history(2).astype({"volume": "Int64", "open": "float32", "close": object})
    frame["high"] = [102.3000000001, 1e6]
    candles = sent(frame)["candles"]
    assert candles["high"] == [102.3000000001, 1e6]
    assert candles["volume"] == [10.0, 10.0]
    assert candles["open"] == [100.0, 100.0]


def test_quantiles_and_sample_paths_are_columns() -> None:
    result = predict(history(), quantile_levels=[0.1, np.float64(0.9)], return_samples=True)
    names = ["", "-q-0.1", "-q-0.9", "-s-0", "-s-1"]
    assert list(result.columns) == [f"{field}{name}" for name in names for field in FIELDS]


def test_metadata_is_in_attrs() -> None:
    metadata = predict(history(), series_id="BTC").attrs["kronos"]
    assert metadata["series_id"] == "BTC"
    assert metadata["seed"] == 7
    assert metadata["warnings"] == [{"code": "DEMO_MODEL", "message": "Not for trading."}]
    assert metadata.keys() >= {"model_version", "timings_ms", "context_used", "request_id"}


def test_parameters_are_sent_where_they_are_given() -> None:
    body = sent(
        history(),
        horizon=5,
        freq="1h",
        calendar="XNYS",
        series_id="BTC",
        seed=np.int64(3),
        temperature=0.5,
        top_k=None,
        repair=False,
    )
    del body["candles"], body["timestamps"]
    assert body == {
        "series_id": "BTC",
        "horizon": 5,
        "freq": "1h",
        "calendar": "XNYS",
        "overrides": {"seed": 3, "temperature": 0.5},
        "repair": False,
    }


def test_future_may_be_given_as_times() -> None:
    future = pd.DatetimeIndex(["2025-03-03 12:00", "2025-03-03 13:00"], tz=NEW_YORK)
    frame = history(tz=NEW_YORK)
    body = sent(frame, prediction_timestamps=future)
    assert body["prediction_timestamps"] == [
        "2025-03-03T12:00:00-05:00",
        "2025-03-03T13:00:00-05:00",
    ]
    assert "horizon" not in body
    assert list(predict(frame, prediction_timestamps=list(future)).index) == list(future)


def test_unknown_parameter_is_refused() -> None:
    with pytest.raises(TypeError, match=r"unknown argument 'temprature'; known: .*temperature"):
        sent(history(), temprature=1)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (history().drop(columns=["low", "open"]), "no column open, low in the frame; found 'high'"),
        (history().assign(Close=1.0), "two columns for close: 'close' and 'Close'"),
        (history().reset_index(drop=True), "no timestamps in the frame"),
        (history().reset_index(drop=True).assign(time=1), "'time' holds int64, not timestamps"),
        (history().assign(volume=[1, float("nan"), 2, 3]), "volume is nan in row 1"),
        (history().assign(high=float("inf")), "high is inf in row 0"),
        (history().rename({pd.Timestamp("2025-03-03 09:15"): pd.NaT}), "a timestamp is missing"),
        (pd.concat({"BTC": history()}, axis=1), "columns of several levels"),
    ],
)
def test_frame_without_a_series_is_refused_before_it_is_sent(
    frame: pd.DataFrame, message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        sent(frame)


@pytest.mark.parametrize("frame", [[1, 2], "candles.csv", history()["close"]])
def test_other_types_are_refused(frame: object) -> None:
    with pytest.raises(TypeError, match="expected a DataFrame of pandas or polars, found"):
        sent(frame)


def test_long_frame_is_forecast_in_the_order_of_its_series() -> None:
    ids = ["b", "a", "c"]
    # Rows of different series stand among each other.
    frame = long_history(ids).sort_index(kind="stable")
    result = Service().call("sync", "predict_many", frame, horizon=2)
    assert list(result.columns) == ["series_id", *FIELDS]
    assert list(result["series_id"]) == ["b", "b", "a", "a", "c", "c"]
    assert isinstance(result.index, pd.DatetimeIndex)
    assert list(result.attrs["kronos"]) == ids


def test_long_frame_with_a_column_of_times_and_numbers_as_ids() -> None:
    frame = long_history([7203, 6758]).rename_axis("timestamps").reset_index()
    frame = frame.rename(columns={"series_id": "code"})
    service = Service()
    result = service.call("sync", "predict_many", frame, "code", horizon=2, batch_size=1)
    assert list(result.columns) == ["code", "timestamps", *FIELDS]
    assert list(result["code"]) == [7203, 7203, 6758, 6758]
    assert list(result.index) == [0, 1, 2, 3]
    assert sorted(body["items"][0]["series_id"] for body in service.bodies) == ["6758", "7203"]


def test_many_series_are_sent_in_batches_within_the_decode_steps() -> None:
    service = Service()
    options: dict[str, Any] = {"horizon": 512, "quantile_levels": [0.5], "concurrency": 1}
    service.call("sync", "predict_many", long_history(range(5)), **options)
    assert [len(body["items"]) for body in service.bodies] == [2, 2, 1]


def test_ids_that_the_service_would_refuse_are_replaced_by_numbers() -> None:
    service = Service()
    result = service.call("sync", "forecast_many", long_history(["", "x" * 129]))
    assert list(result) == ["", "x" * 129]
    assert [item["series_id"] for item in service.bodies[0]["items"]] == ["0", "1"]


def test_long_frame_without_series_has_no_forecast() -> None:
    service = Service()
    assert service.call("sync", "predict_many", long_history(["a"]).iloc[:0]).empty
    assert service.requests == []


@pytest.mark.parametrize(
    ("frame", "options", "message"),
    [
        (history(), {}, "no column 'series_id' in the frame"),
        (long_history(["a", None]), {}, "series_id has missing values"),
        (long_history(["a"]), {"batch_size": 0}, "batch_size must be at least 1, found 0"),
        (long_history(["a"]), {"concurrency": 0}, "concurrency must be at least 1, found 0"),
    ],
)
def test_long_frames_that_cannot_be_sent(
    frame: pd.DataFrame, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Service().call("sync", "predict_many", frame, **options)
