"""Candles from CSV files, forecasts as CSV files and charts."""

import gzip
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kronos_api.cli.outputs import Format, Target
from kronos_api.cli.tables import draw, read_history, to_table
from kronos_api.errors import InvalidInput
from kronos_api.files.history import History
from kronos_api.forecast import Forecast
from kronos_api.timeseries import Timestamps, parse_timestamps
from kronos_api.timeseries.features import FIELDS

HEADER = "timestamps,open,high,low,close,volume"
GOOD = ("2026-01-05,10,12,9,11,100", "2026-01-06,11,13,10,12,200", "2026-01-07,12,14,11,13,300")


def saved(folder: Path, *lines: str) -> Path:
    path = folder / "candles.csv"
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def test_reads_candles(tmp_path: Path) -> None:
    series = read_history(saved(tmp_path, HEADER, *GOOD), rows=10)
    assert series.candles.dtype == np.float32
    expected = [
        [10, 12, 9, 11, 100, 1050],
        [11, 13, 10, 12, 200, 2300],
        [12, 14, 11, 13, 300, 3750],
    ]
    np.testing.assert_array_equal(series.candles, np.array(expected, dtype=np.float32))
    assert series.timestamps.texts == ["2026-01-05", "2026-01-06", "2026-01-07"]


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_takes_the_last_rows(tmp_path: Path, rows: int) -> None:
    series = read_history(saved(tmp_path, HEADER, *GOOD), rows)
    assert series.candles[:, 3].tolist() == [11.0, 12.0, 13.0][-rows:]
    assert len(series.timestamps) == rows


@pytest.mark.parametrize(
    ("header", "line", "expected"),
    [
        ("Datetime, Open, HIGH, Low, Close", "2026-01-05 10:00, 1, 3, 1, 2", [1, 3, 1, 2, 0, 0]),
        ("close,low,high,open,when,date", "2,1,3,1,x,2026-01-05", [1, 3, 1, 2, 0, 0]),
        ("when,open,high,low,close,vol", "2026-01-05,1,3,1,2,8", [1, 3, 1, 2, 8, 14]),
        ("date,open,high,low,close,Volume,AMOUNT", "2026-01-05,1,3,1,2,8,9", [1, 3, 1, 2, 8, 9]),
    ],
)
def test_finds_columns_by_name(
    tmp_path: Path, header: str, line: str, expected: list[float]
) -> None:
    series = read_history(saved(tmp_path, header, line), rows=5)
    assert series.candles.tolist() == [expected]
    assert series.timestamps.texts[0].startswith("2026-01-05")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ((), "is empty"),
        ((HEADER,), "has a header and no candles"),
        (("date,open,high,volume",), "has no column low, close"),
        (("date,open,high,low,close,Close", GOOD[0]), "has 2 columns close"),
        ((HEADER, "2026-01-05,10,12,9,x,1"), "line 2: close must be a finite number"),
        (
            (HEADER, "2026-01-05,10,12,9,,1"),
            "must be a finite number; found an empty",
        ),
        ((HEADER, "2026-01-05,10,12,9,inf,1"), "line 2: close must be a finite number"),
        ((HEADER, GOOD[0], "2026-01-06,0,12,0,11,1"), "line 3: open must be greater than 0"),
        ((HEADER, "2026-01-05,1e-50,12,9,11,1"), "line 2: open must be greater than 0"),
        ((HEADER, "2026-01-05,10,12,9,11,-1"), "line 2: volume must be at least 0"),
        ((HEADER, "2026-01-05,10,1e18,9,11,1"), "line 2: high must be at most 1e+17"),
        (
            (HEADER, "2026-01-05,10,1e39,9,11,1"),
            "line 2: high must be a finite number; found",
        ),
        (
            (HEADER, "2026-01-05,10,12,9,11,1e17"),
            "line 2: volume must be at most 1e+17 when",
        ),
        ((HEADER, "2026-01-05,10,10.5,9,11,1"), "line 2: high must be at least open and close"),
        ((HEADER, "2026-01-05,10,12,10.5,11,1"), "line 2: low must be at most open and close"),
        (
            (HEADER, "yesterday,10,12,9,11,1"),
            "line 2: timestamps is 'yesterday', which",
        ),
        ((HEADER, ",10,12,9,11,1"), "line 2: timestamps is '', which is no known"),
        ((HEADER, GOOD[0], GOOD[0]), "line 3: timestamps must be after the one before it"),
        (("", HEADER, "", GOOD[0], " ", "2026-01-06,10,1,9,11,1"), "line 6: high must be at least"),
    ],
)
def test_bad_files_are_refused_by_line(
    tmp_path: Path, lines: tuple[str, ...], message: str
) -> None:
    path = saved(tmp_path, *lines)
    with pytest.raises(InvalidInput) as refused:
        read_history(path, rows=10)
    assert str(refused.value).startswith(f"{path}: ")
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_line_numbers_are_those_of_the_file(tmp_path: Path) -> None:
    path = saved(tmp_path, HEADER, *GOOD[:2], "2026-01-07,12,14,11,15,1")
    with pytest.raises(InvalidInput, match="line 4: high"):
        read_history(path, rows=1)


def test_old_lines_are_not_read(tmp_path: Path) -> None:
    path = saved(tmp_path, HEADER, "nonsense,a,b,c,d,e", *GOOD)
    assert len(read_history(path, rows=3).timestamps) == 3


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b'a,b\n"1,2\n', b"a\n1,2\n3,4,5,6\n"])
def test_file_that_is_not_csv_gets_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "candles.csv"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match=r"^[^\n]+$"):
        read_history(path, rows=3)


def test_prices_that_differ_within_float32_are_in_order(tmp_path: Path) -> None:
    line = "2026-01-05,10.123456789,10.123456788,9,10.1,1"
    series = read_history(saved(tmp_path, HEADER, line), rows=3)
    assert series.candles[0, 0] == series.candles[0, 1]


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(InvalidInput, match="cannot be read: "):
            read_history(path, rows=3)


@pytest.fixture
def future() -> Timestamps:
    return parse_timestamps(["2026-01-08", "2026-01-09"], "timestamps")


@pytest.fixture
def forecast() -> Forecast:
    mean = np.arange(12, dtype=np.float32).reshape(2, 6) + 10
    return Forecast(mean, {0.1: mean - 1, 0.9: mean + 1}, None, 3, 0, 0.0, 0.0)


def test_table_has_all_fields_and_quantiles(forecast: Forecast, future: Timestamps) -> None:
    table = to_table(forecast, future)
    quantiles = [f"{name}-q-{level}" for level in (0.1, 0.9) for name in FIELDS]
    assert list(table.columns) == [*FIELDS, *quantiles]
    assert table.loc["2026-01-09", "close"] == 19
    assert table.loc["2026-01-09", "close-q-0.1"] == 18


READERS: dict[str, Callable[[Path], pd.DataFrame]] = {
    "csv": pd.read_csv,
    "json": pd.read_json,
    "parquet": pd.read_parquet,
}


@pytest.mark.parametrize("format", ["csv", "json", "parquet"])
def test_written_table_reads_back(
    tmp_path: Path, forecast: Forecast, future: Timestamps, format: Format
) -> None:
    table = to_table(forecast, future)
    if format == "parquet":
        pytest.importorskip("pyarrow")
    Target(tmp_path / "out", format).write(table)
    back = READERS[format](tmp_path / "out")
    assert list(back.columns) == ["timestamps", *table.columns]
    np.testing.assert_array_equal(back[list(FIELDS)].to_numpy(np.float32), forecast.mean)
    with pytest.raises(InvalidInput, match="cannot be written"):
        Target(tmp_path / "none" / "out", format).write(table)


@pytest.fixture
def series(tmp_path: Path) -> History:
    return read_history(saved(tmp_path, HEADER, *GOOD), rows=3)


@pytest.mark.parametrize("quantiles", [0, 1, 2])
def test_chart_is_a_picture(
    tmp_path: Path, series: History, forecast: Forecast, future: Timestamps, quantiles: int
) -> None:
    levels = dict(list(forecast.quantiles.items())[:quantiles])
    shown = Forecast(forecast.mean, levels, None, 3, 0, 0.0, 0.0)
    draw(series, shown, future, tmp_path / "out.png", "a title")
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["out.nonsense", "none/out.png"])
def test_chart_that_cannot_be_written(
    tmp_path: Path, series: History, forecast: Forecast, future: Timestamps, name: str
) -> None:
    with pytest.raises(InvalidInput, match="cannot be written"):
        draw(series, forecast, future, tmp_path / name, "a title")


def test_chart_without_matplotlib_names_the_extra(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    series: History,
    forecast: Forecast,
    future: Timestamps,
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(InvalidInput, match=r"pip install 'kronos-api\[charts\]'"):
        draw(series, forecast, future, tmp_path / "out.png", "a title")


def test_pipes_and_compressed_files_have_line_numbers(tmp_path: Path) -> None:
    lines = f"{HEADER}\n{GOOD[0]}\n2026-01-06,0,12,0,11,1\n".encode()
    packed = tmp_path / "candles.csv.gz"
    packed.write_bytes(gzip.compress(lines))
    reading, writing = os.pipe()
    with os.fdopen(reading), os.fdopen(writing, "wb") as pipe:
        pipe.write(lines)
        pipe.close()
        for path in (packed, Path(f"/dev/fd/{reading}")):
            with pytest.raises(InvalidInput, match="line 3: open must be greater than 0"):
                read_history(path, rows=5)
