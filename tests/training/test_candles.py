from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kronos_api.timeseries import features
from tests.training.walks import walk
from training.candles import (
    LONGEST_STANDSTILL,
    Series,
    clean,
    invert,
    load,
    resample,
    split,
    time_features,
)

HEADERS = {
    "named": "datetime,open,high,low,close,volume",
    "capitals": ",Open,High,Low,Close,Volume",
    "timestamps not first": "open,high,low,close,volume,timestamps",
}


@pytest.mark.parametrize("case", HEADERS)
def test_load_finds_columns_by_name_in_any_case(case: str, tmp_path: Path) -> None:
    rows = [("2024-01-02 00:15", 2, 4, 1, 3, 10), ("2024-01-02 00:00", 1, 2, 1, 2, 20)]
    if case == "timestamps not first":
        lines = [",".join(map(str, (*row[1:], row[0]))) for row in rows]
    else:
        lines = [",".join(map(str, row)) for row in rows]
    file = tmp_path / "SOME.csv"
    file.write_text("\n".join([HEADERS[case], *lines]))
    series = load(str(file))
    assert series.name == "SOME"
    assert series.timestamps.tolist() == sorted(series.timestamps.tolist())
    assert series.candles[1].tolist() == [2, 4, 1, 3, 10, 25]  # amount: volume × mean price


def test_load_names_a_missing_column(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("date,open,high,close\n2024-01-01,1,1,1\n")
    with pytest.raises(ValueError, match="no column 'low'"):
        load(str(file))


def test_clean_drops_impossible_candles() -> None:
    series = walk(40)
    candles = series.candles.copy()
    candles[3, 3] = np.nan
    candles[5, 2] = -1
    candles[7, 1] = candles[7, 2] / 2  # high below low
    candles[9, 4] = -1
    timestamps = series.timestamps.copy()
    timestamps[11] = timestamps[10]
    kept = clean(Series("dirty", timestamps, candles))
    gone = set(series.timestamps.tolist()) - set(kept.timestamps.tolist())
    assert gone == {series.timestamps[i].item() for i in (3, 5, 7, 9, 11)}


@pytest.mark.parametrize("extra", [0, 1])
def test_clean_cuts_long_standstills_only(extra: int) -> None:
    series = walk(60)
    candles = series.candles.copy()
    still = LONGEST_STANDSTILL + extra
    candles[20 : 20 + still, :4] = candles[19, 3]
    assert len(clean(Series("still", series.timestamps, candles))) == 60 - still * extra


def test_split_leaves_nothing_of_later_parts_in_training() -> None:
    part = split(walk(1000), embargo=24)
    first, last = part.validation
    timestamps = part.series.timestamps
    assert len(part.train) == 800
    assert part.train.timestamps[-1] + 24 * part.series.bar < timestamps[first]
    assert timestamps[last - 1] + 24 * part.series.bar < timestamps[part.test[0]]
    assert part.test[1] == len(part.series)
    assert part.test[0] - last == 24


def test_resample_joins_whole_bars_on_the_clock() -> None:
    series = walk(50).cut(1, 50)
    gap = np.delete(np.arange(49), 10)
    coarse = resample(Series("gap", series.timestamps[gap], series.candles[gap]), 4)
    minutes = coarse.timestamps.astype("datetime64[m]").astype(int)
    assert (minutes % 60 == 0).all()
    assert len(coarse) == 10  # the first and last are not whole, one lacks a bar
    at = int(np.flatnonzero(series.timestamps == coarse.timestamps[-1])[0])
    fine = series.candles[at : at + 4]
    expected = [fine[0, 0], fine[:, 1].max(), fine[:, 2].min(), fine[-1, 3]]
    np.testing.assert_allclose(coarse.candles[-1, :4], expected)
    np.testing.assert_allclose(coarse.candles[-1, 4:], fine[:, 4:].sum(axis=0), rtol=1e-6)


def test_resample_shifted_starts_later() -> None:
    shifted = resample(walk(50), 4, phase=1)
    minutes = shifted.timestamps.astype("datetime64[m]").astype(int)
    assert (minutes % 60 == 15).all()


def test_invert_gives_candles_and_undoes_itself() -> None:
    candles = walk(20).candles
    inverted = invert(candles)
    assert (inverted[:, 1] >= inverted[:, [0, 2, 3]].max(axis=1)).all()
    assert (inverted[:, 2] <= inverted[:, [0, 1, 3]].min(axis=1)).all()
    np.testing.assert_allclose(invert(inverted), candles, rtol=1e-6)


def test_time_features_are_those_of_the_service() -> None:
    timestamps = walk(200).timestamps
    np.testing.assert_array_equal(
        time_features(timestamps), features.time_features(timestamps.tolist())
    )
