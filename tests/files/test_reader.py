"""Files of the forms that data sources give are read as the candles that they hold."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kronos_api.errors import InvalidInput
from kronos_api.files import FileCandles, ReadOptions, read_candles
from kronos_api.files.columns import parse_choice

ROWS = 20
DAYS = [datetime(2024, 1, 2) + timedelta(days=n) for n in range(ROWS)]
MINUTES = [datetime(2024, 1, 2, 9) + timedelta(minutes=n) for n in range(ROWS)]


def prices(scale: float = 1.0, rows: int = ROWS) -> dict[str, list[float]]:
    """A walk in steps of a hundredth, with volume."""
    steps = np.random.default_rng(1).integers(-50, 50, rows)
    close = 5000 + np.cumsum(steps)
    opened = np.concatenate([[5000], close[:-1]])
    columns = {
        "open": opened,
        "high": np.maximum(opened, close) + 7,
        "low": np.minimum(opened, close) - 7,
        "close": close,
    }
    numbers = {name: (column * scale / 100).tolist() for name, column in columns.items()}
    return numbers | {"volume": np.random.default_rng(2).integers(1, 9999, rows).tolist()}


PRICES = prices()


def written(
    header: Sequence[str],
    times: Sequence[str],
    columns: Sequence[str] = ("open", "high", "low", "close", "volume"),
    separator: str = ",",
    number: Callable[[float], str] = repr,
) -> bytes:
    lines = [separator.join(header)]
    for row, time in enumerate(times):
        lines.append(separator.join([time, *(number(PRICES[name][row]) for name in columns)]))
    return ("\n".join(lines) + "\n").encode()


HEADER = ("timestamps", "open", "high", "low", "close", "volume")
ISO = [f"{day:%Y-%m-%d}" for day in DAYS]
PLAIN = written(HEADER, ISO)


def check(candles: FileCandles, times: Sequence[str] = ISO) -> None:
    for name, column in PRICES.items():
        np.testing.assert_allclose(candles.columns[name], column, rtol=1e-12)
    assert candles.timestamps == list(times)


def test_plain_file() -> None:
    candles = read_candles(PLAIN)
    check(candles)
    assert candles.understood == (
        f"read {ROWS} rows, columns timestamps as time, open, high, low, close, volume"
    )
    assert candles.lines == list(range(2, ROWS + 2))


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_separators(separator: str) -> None:
    check(read_candles(written(HEADER, ISO, separator=separator)))


def test_decimal_comma() -> None:
    data = written(HEADER, ISO, separator=";", number=lambda value: repr(value).replace(".", ","))
    candles = read_candles(data)
    check(candles)
    assert "semicolon, decimal comma" in candles.understood


def test_thousands_and_suffixes() -> None:
    def number(value: float) -> str:
        return f'"{value / 1000}K"' if value == int(value) else f'"{value:,.2f}"'

    check(read_candles(written(HEADER, ISO, number=number)))


@pytest.mark.parametrize(
    ("encoding", "bom", "message"),
    [
        ("utf-8", b"\xef\xbb\xbf", "read 20 rows"),
        ("utf-16-le", b"\xff\xfe", "UTF-16-LE"),
        ("utf-16-be", b"\xfe\xff", "UTF-16-BE"),
        ("utf-16-le", b"", "UTF-16-LE"),
    ],
)
def test_encodings(encoding: str, bom: bytes, message: str) -> None:
    text = PLAIN.decode().replace("\n", "\r\n")
    candles = read_candles(bom + text.encode(encoding))
    check(candles)
    assert message in candles.understood


def test_chinese_names_in_gb18030() -> None:
    header = ("日期", "开盘", "最高", "最低", "收盘", "成交量")
    candles = read_candles(written(header, ISO).decode().encode("gb18030"))
    check(candles)
    assert "GB18030" in candles.understood


def _zip(data: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("candles.csv", data)
    return file.getvalue()


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, _zip])
def test_packed_files(pack: Callable[[bytes], bytes]) -> None:
    check(read_candles(pack(PLAIN)))


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("{0.year}/{0.month}/{0.day}", "%Y-%m-%d"),
        ("{0:%Y%m%d}", "%Y-%m-%d"),
        ("{0:%d.%m.%Y}", "%Y-%m-%d"),
        ("{0:%m/%d/%Y}", "%Y-%m-%d"),
        ("{0:%d/%m/%Y}", "%Y-%m-%d"),
        ("{0:%b %d, %Y}", "%Y-%m-%d"),
        ("{0:%d-%b-%Y}", "%Y-%m-%d"),
        ("{0.year}年{0.month}月{0.day}日", "%Y-%m-%d"),
        ("{0:%Y-%m-%d} {0.hour}:{0:%M}", "%Y-%m-%dT%H:%M"),
        ("{0:%Y.%m.%d %H:%M}", "%Y-%m-%dT%H:%M"),
        ("{0:%Y%m%d%H%M%S}", "%Y-%m-%dT%H:%M:%S"),
        ("{0:%Y%m%d %H%M%S}", "%Y-%m-%dT%H:%M:%S"),
        ("{0:%Y%m%dT%H%M%S}Z", "%Y-%m-%dT%H:%M:%SZ"),
        ("{0:%Y-%m-%d %H:%M:%S} UTC", "%Y-%m-%dT%H:%M:%SZ"),
        ("{0:%Y-%m-%d %H:%M:%S} +0800", "%Y-%m-%dT%H:%M:%S+0800"),
        ("{0:%m/%d/%Y %I:%M:%S %p}", "%Y-%m-%dT%H:%M:%S"),
    ],
)
def test_forms_of_time_stamps(form: str, expected: str) -> None:
    times = DAYS if expected == "%Y-%m-%d" else MINUTES
    if "/%Y" in form and times is MINUTES:
        times = [day.replace(hour=15) for day in DAYS]
    quoted = [f'"{form.format(time)}"' for time in times]
    check(read_candles(written(HEADER, quoted)), [f"{time:{expected}}" for time in times])


@pytest.mark.parametrize("units", [1, 1_000, 1_000_000, 1_000_000_000])
def test_epochs(units: int) -> None:
    seconds = [int(time.replace(tzinfo=UTC).timestamp()) for time in MINUTES]
    data = written(("open_time", *HEADER[1:]), [str(second * units) for second in seconds])
    check(read_candles(data), [f"{time:%Y-%m-%dT%H:%M:%SZ}" for time in MINUTES])


def test_binance_archive_without_header() -> None:
    rows = []
    for row, time in enumerate(MINUTES):
        second = int(time.replace(tzinfo=UTC).timestamp())
        numbers = [repr(PRICES[name][row]) for name in HEADER[1:]]
        rows.append(",".join([f"{second}000000", *numbers, "0", "323.4", "1", "0", "0", "0"]))
    candles = read_candles("\n".join(rows).encode())
    check(candles, [f"{time:%Y-%m-%dT%H:%M:%SZ}" for time in MINUTES])
    assert candles.columns["amount"].tolist() == [323.4] * ROWS


def test_date_and_time_of_day_in_two_columns() -> None:
    times = [f"{time:%Y.%m.%d}\t{time:%H:%M:%S}" for time in MINUTES]
    header = ("<DATE>", "<TIME>", "<OPEN>", "<HIGH>", "<LOW>", "<CLOSE>", "<TICKVOL>")
    check(
        read_candles(written(header, times, separator="\t")),
        [f"{time:%Y-%m-%dT%H:%M:%S}" for time in MINUTES],
    )


def test_ticks_where_the_volume_is_all_zero() -> None:
    data = PLAIN.decode().replace("volume", "<TICKVOL>,<VOL>").replace("\n2", ",0\n2")
    candles = read_candles((data.rstrip("\n") + ",0\n").encode())
    assert candles.columns["volume"].tolist() == PRICES["volume"]


def test_three_header_lines_of_yfinance() -> None:
    header = "Price,Open,High,Low,Close,Volume\nTicker,ABC,ABC,ABC,ABC,ABC\nDate,,,,,\n"
    body = PLAIN.decode().split("\n", 1)[1]
    check(read_candles((header + body).encode()))
    with pytest.raises(InvalidInput, match=r"holds 2 series \(ABC, XYZ"):
        read_candles((header.replace("ABC\nDate", "XYZ\nDate") + body).encode())


def test_newest_first_is_turned_round() -> None:
    header, *rows = PLAIN.decode().splitlines()
    candles = read_candles("\n".join([header, *reversed(rows)]).encode())
    check(candles)
    assert "newest first turned round" in candles.understood
    assert candles.lines[-1] == 2
    assert (
        read_candles("\n".join([header, *reversed(rows)]).encode(), last=3).timestamps == ISO[-3:]
    )


def test_turnover_that_is_a_rate_is_not_an_amount() -> None:
    def with_column(name: str, values: Sequence[float]) -> bytes:
        header, *rows = PLAIN.decode().splitlines()
        added = [f"{row},{value}" for row, value in zip(rows, values, strict=True)]
        return "\n".join([f"{header},{name}", *added]).encode()

    rates = read_candles(with_column("turnover", [0.03] * ROWS))
    assert "amount" not in rates.columns
    assert "turnover is a rate" in rates.understood
    money = [
        volume * close for volume, close in zip(PRICES["volume"], PRICES["close"], strict=True)
    ]
    amounts = read_candles(with_column("turnover", money))
    assert amounts.columns["amount"].tolist() == money


def test_columns_by_choice() -> None:
    data = written(("When", "A1", "A2", "A3", "A4", "A5"), ISO)
    with pytest.raises(InvalidInput, match='has no column open, high, low, close; found "When"'):
        read_candles(data)
    choice = parse_choice("time=When, open=A1,high=A2,low=A3,close=A4,volume=A5")
    check(read_candles(data, ReadOptions(columns=choice)))
    with pytest.raises(InvalidInput, match=r'no column "Whn" for time; did you mean "When"\?'):
        read_candles(data, ReadOptions(columns=parse_choice("time=Whn")))


@pytest.mark.parametrize("index", ["timestamps", None])
@pytest.mark.parametrize("form", ["to_parquet", "to_feather"])
def test_parquet_and_feather(form: str, index: str | None) -> None:
    pytest.importorskip("pyarrow", reason="the extra arrow is not installed")
    frame = pd.DataFrame(PRICES | {"timestamps": pd.to_datetime(ISO)})
    if index is not None and form == "to_parquet":
        frame = frame.set_index(index)
    file = io.BytesIO()
    getattr(frame, form)(file)
    check(read_candles(file.getvalue()), [f"{day}T00:00:00" for day in ISO])
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_candles(file.getvalue()[:-100])


@pytest.mark.parametrize("text", ["close", "clos=Last", "close=", "=x"])
def test_bad_choice(text: str) -> None:
    with pytest.raises(InvalidInput, match="--columns must be such as close=Last"):
        parse_choice(text)


def test_time_format_and_decimal_where_guessing_fails() -> None:
    unclear = written(HEADER, [f"0{n % 9 + 1}/0{n // 9 + 1}/2024" for n in range(ROWS)])
    with pytest.raises(InvalidInput, match="day and month cannot be told apart"):
        read_candles(unclear)
    candles = read_candles(unclear, ReadOptions(time_format="%d/%m/%Y"))
    assert candles.timestamps[:2] == ["2024-01-01", "2024-01-02"]

    line = "2024-01-02;24,300;24,300;24,300;24,300"
    head = "date;open;high;low;close"
    with pytest.raises(InvalidInput, match="can be a decimal mark or group thousands"):
        read_candles(f"{head}\n{line}\n".encode())
    for decimal, expected in ((".", 24300.0), (",", 24.3)):
        options = ReadOptions(decimal=decimal)  # type: ignore[arg-type]
        assert read_candles(f"{head}\n{line}\n".encode(), options).columns["open"][0] == expected


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"date,open,high,low,close\n", "has a header and no candles"),
        (b"1,2,3,4,5\n6,7,8,9,10\n", "line 1 holds numbers in 5 columns and no names"),
        (b"open,high,low,close\n1,2,1,2\n", "has no time column; found"),
        (b"date,open,high,low\n", 'has no column close; found "date", "open", "high", "low"'),
        (b"date,open,high,low,close,Close\n", "has 2 columns close"),
        (b"PK\x03\x04 nonsense", "cannot be decompressed"),
        (b"\x1f\x8b nonsense", "cannot be decompressed"),
        (b"%PDF-1.4", "is a file of the format pdf"),
        (b"\x00\x01\x02", "is not text"),
        (b"ARROW1 nonsense", "read"),
        (
            b"symbol,date,open,high,low,close\na,2024-01-02,1,2,1,2\nb,2024-01-02,1,2,1,2\n",
            "holds 2 series in the column 'symbol' (a, b)",
        ),
        (
            b"date,open,high,low,close\nyesterday,1,2,1,2\n",
            "line 2: date is 'yesterday', which is no known timestamp; accepted is 2025",
        ),
        (
            b"date,open,high,low,close\n2024-01-02,1,234,1,2,1,2\n",
            "line 2: has 7 fields where the header has 5",
        ),
        (
            b"date;open;high;low;close\n2024-01-02;1.5;2,5;1;2\n",
            "a decimal point and numbers with a decimal comma",
        ),
    ],
)
def test_error_names_what_was_found(data: bytes, message: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        read_candles(data)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


FORMS = st.tuples(
    st.sampled_from([",", ";", "\t", "|"]),
    st.booleans(),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "gb18030"]),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["%Y-%m-%d", "%Y/%m/%d", "%Y%m%d", "%d.%m.%Y", "%m/%d/%Y"]),
    st.booleans(),
)


@given(FORMS, st.integers(-9, 9))
def test_every_form_of_a_file_holds_the_same_candles(
    form: tuple[str, bool, str, str, str, bool], power: int
) -> None:
    separator, comma, encoding, newline, date, newest_first = form
    columns = prices(10.0**power)
    lines = []
    for row, day in enumerate(DAYS):
        numbers = [repr(columns[name][row]) for name in HEADER[1:]]
        if comma and separator != ",":
            numbers = [number.replace(".", ",") for number in numbers]
        lines.append(separator.join([f"{day:{date}}", *numbers]))
    if newest_first:
        lines.reverse()
    data = newline.join([separator.join(HEADER), *lines]).encode(encoding)
    candles = read_candles(data)
    assert candles.timestamps == ISO
    for name, column in columns.items():
        assert candles.columns[name].tolist() == column


@pytest.mark.parametrize("newest_first", [False, True])
def test_the_middle_of_a_long_file_is_not_read_if_bounded(newest_first: bool) -> None:
    lines = [f"{1_700_000_000 + 60 * n},{100 + n % 7},110,90,{101 + n % 5}" for n in range(500)]
    lines[240] = "the middle"
    lines = lines[::-1] if newest_first else lines
    content = "\n".join(["time,open,high,low,close", *lines]).encode()
    found = read_candles(content, last=50, bounded=True)
    lines[lines.index("the middle")] = "1700014400,1,2,1,1"
    whole = read_candles("\n".join(["time,open,high,low,close", *lines]).encode(), last=50)
    assert found.understood == whole.understood
    assert (found.timestamps, found.lines) == (whole.timestamps, whole.lines)
    assert all((found.columns[name] == whole.columns[name]).all() for name in whole.columns)


def test_binary_tables_are_refused_if_bounded() -> None:
    with pytest.raises(InvalidInput, match="is Parquet; save it as CSV"):
        read_candles(b"PAR1 and more", bounded=True)
