"""The Python API: the service's rules and numbers on data frames, without a server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import kronos_api
from kronos_api import Forecaster, InvalidInput, StartupError
from kronos_api.checkpoints.hub import BUNDLED, locate
from kronos_api.engine.build import build_engine
from kronos_api.timeseries.features import FIELDS
from tests.web import SINGLE, body, candles, serving, stamps


@pytest.fixture(scope="module")
def forecaster() -> Forecaster:
    return Forecaster(device="cpu", torch_threads=1)


def frame(rows: int = 60) -> pd.DataFrame:
    """The candles of `tests.web.body`, indexed by time."""
    return pd.DataFrame(candles(rows), index=pd.DatetimeIndex(stamps(rows)))


def test_import_is_lazy() -> None:
    code = "import sys, kronos_api; sys.exit('torch' in sys.modules or 'pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert kronos_api.Forecaster is Forecaster
    with pytest.raises(AttributeError, match="no_such_name"):
        kronos_api.no_such_name  # noqa: B018


@pytest.mark.parametrize("samples", [False, True])
async def test_seeded_forecast_has_the_bytes_of_the_service(
    forecaster: Forecaster, samples: bool
) -> None:
    engine = build_engine(
        locate(None, "model", timeout=1),
        locate(None, "tokenizer", timeout=1),
        device="cpu",
        torch_threads=1,
    )
    request = body(
        60,
        horizon=5,
        quantile_levels=[0.1, 0.9],
        overrides={"seed": 7, "sample_count": 4, "temperature": 0.8},
        return_samples=samples,
        summary=True,
        levels=[90.0, 101.5],
    )
    async with serving(engine) as client:
        response = (await client.post(SINGLE, json=request)).json()
    found = forecaster.forecast(
        frame(60),
        horizon=5,
        quantile_levels=(0.1, 0.9),
        sample_count=4,
        temperature=0.8,
        seed=7,
        samples=samples,
        summary=True,
        levels=(90.0, 101.5),
    )
    if samples:
        served = np.array([[path[name] for name in FIELDS] for path in response["samples"]])
        served = served.astype(np.float32).transpose(0, 2, 1)
        assert found.to_numpy().tobytes() == served.tobytes()
        return
    for name in FIELDS:
        served_mean = np.array([one[name] for one in response["prediction"]], np.float32)
        assert found[name].to_numpy().tobytes() == served_mean.tobytes()
        for level in ("0.1", "0.9"):
            quantile = np.array(response["quantiles"][level][name], np.float32)
            assert found[f"{name}-q-{level}"].to_numpy().tobytes() == quantile.tobytes()
    assert found.attrs["summary"] == response["summary"]
    for name in ("p_up", "expected_return", "volatility"):
        served_risk = np.array(response["summary"][name], np.float32)
        assert np.array_equal(found[name], served_risk)
    times = [pd.Timestamp(candle["timestamp"]) for candle in response["prediction"]]
    assert list(found.index) == times
    assert found.attrs["seed"] == response["seed"] == 7
    assert found.attrs["model"] == response["model_version"]
    assert found.attrs["demo"]


def test_random_seed_is_kept_and_repeats_the_forecast(forecaster: Forecaster) -> None:
    first = forecaster.forecast(frame(), horizon=2)
    again = forecaster.forecast(frame(), horizon=2, seed=first.attrs["seed"])
    pd.testing.assert_frame_equal(first, again)


def test_sample_paths_are_indexed_by_path_and_time(forecaster: Forecaster) -> None:
    found = forecaster.forecast(frame(), horizon=3, sample_count=4, samples=True)
    assert found.index.names == ["path", None]
    assert found.shape == (12, 6)
    assert (found.dtypes == np.float32).all()
    assert len(found.loc[3]) == 3


@pytest.mark.parametrize("form", ["index", "zone", "texts", "datetimes"])
def test_times_may_be_an_index_or_a_column(forecaster: Forecaster, form: str) -> None:
    given = frame().tz_localize(None) if form == "datetimes" else frame()
    if form == "zone":
        given = given.tz_convert("Asia/Tokyo")
    if form in ("texts", "datetimes"):
        given = given.reset_index(names="timestamps")
    if form == "texts":
        given["timestamps"] = given["timestamps"].map(pd.Timestamp.isoformat)
    given = given.rename(columns=str.upper) if form == "datetimes" else given
    found = forecaster.forecast(given, horizon=2, freq="15min")
    zone = {"zone": "Asia/Tokyo", "datetimes": None}.get(form, "UTC")
    last = frame().index[-1]
    expected = pd.DatetimeIndex([last + pd.Timedelta(minutes=15 * n) for n in (1, 2)])
    expected = expected.tz_localize(None) if zone is None else expected.tz_convert(zone)
    assert list(found.index) == list(expected)


def test_daily_bars_keep_their_local_time_over_a_clock_change(forecaster: Forecaster) -> None:
    index = pd.date_range("2025-02-10", "2025-03-07", freq="D", tz="America/New_York")
    forecast = forecaster.forecast(frame(len(index)).set_axis(index), horizon=4)
    expected = pd.date_range("2025-03-08", periods=4, freq="D", tz="America/New_York")
    assert list(forecast.index) == list(expected)


def test_calendar_skips_closed_hours(forecaster: Forecaster) -> None:
    given = frame(4)
    given.index = (
        pd.bdate_range("2024-12-30", periods=4)
        .delete(2)[:3]
        .union(pd.DatetimeIndex(["2025-01-03"]))
    )
    found = forecaster.forecast(given, horizon=1, freq="1D", calendar="XNYS")
    assert list(found.index) == [pd.Timestamp("2025-01-06")]


def test_repair_input_moves_a_high_below_the_close_by_a_tick(forecaster: Forecaster) -> None:
    given = frame()
    given["high"] = given[["open", "close"]].max(axis=1) * (1 - 1e-4)
    given["low"] = given[["open", "close"]].min(axis=1)
    with pytest.raises(InvalidInput, match="repair_input"):
        forecaster.forecast(given, horizon=1)
    assert len(forecaster.forecast(given, horizon=1, repair_input=True)) == 1


async def test_forecast_with_a_calendar_inside_a_running_event_loop(
    forecaster: Forecaster,
) -> None:
    """As in a notebook."""
    found = forecaster.forecast(frame(), horizon=1, freq="15min", calendar="24/7", bar_label="open")
    assert len(found) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"horizon": 0}, "horizon must be from 1 to 512"),
        ({"temperature": 0.0001}, "temperature must be 0 (greedy), or from 0.001 to 100"),
        ({"top_k": -1}, "top_k must be"),
        ({"top_p": 0}, "top_p must be greater than 0"),
        ({"sample_count": -1}, "sample_count must be at least 1"),
        ({"sample_count": 0}, "sample_count must be at least 1"),
        ({"seed": -1}, "seed must be from 0 to 2^53 - 1"),
        ({"quantile_levels": (10, 90)}, "quantile_levels must be different levels between"),
        ({"quantile_levels": (0.1,), "sample_count": 1}, "at least 2 with quantile_levels"),
        ({"bar_label": "left"}, "bar_label must be open or close"),
        ({"freq": "often"}, "freq must be"),
        ({"candles": frame().drop(columns="close")}, "have no column close; found open, high, low"),
        ({"candles": frame().reset_index(drop=True)}, "index of type RangeIndex"),
        ({"candles": frame().iloc[::-1]}, "timestamps must be oldest first"),
        ({"candles": frame(4)[:0]}, "candles must be 1 to 2048 rows; found 0"),
        ({"candles": frame().assign(close="high")}, "close[0] must be finite"),
        ({"candles": frame().assign(low=-1.0)}, "low[0] must be greater than 0"),
    ],
)
def test_invalid_input_is_named(
    forecaster: Forecaster, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidInput) as refusal:
        forecaster.forecast(**({"candles": frame()} | options))
    assert words in str(refusal.value)


@pytest.mark.parametrize("form", ["one folder", "two folders"])
def test_checkpoints_in_folders(tmp_path: Path, form: str) -> None:
    names = (BUNDLED,) if form == "one folder" else (BUNDLED / "model", BUNDLED / "tokenizer")
    info = Forecaster(*names, device="cpu", torch_threads=1, max_context=64).info
    assert info.model.id == str(BUNDLED / "model")
    assert info.max_context == 64
    with pytest.raises(StartupError, match="name its tokenizer too"):
        Forecaster(BUNDLED / "model")
    with pytest.raises(StartupError, match="does not exist"):
        Forecaster(tmp_path / "none", BUNDLED / "tokenizer")
