"""Files in the forms of many data sources hold the same candles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import numpy as np
import pytest

from kronos_api.errors import InvalidInput
from kronos_api.files import read_candles

ROWS = 14
DAYS = [datetime(2024, 1, 2) + timedelta(days=n) for n in range(ROWS)]
OPEN = [100 + n * 0.5 for n in range(ROWS)]
CANDLES = {
    "o": OPEN,
    "h": [value + 1.5 for value in OPEN],
    "l": [value - 1.25 for value in OPEN],
    "c": [value + 0.25 for value in OPEN],
    "v": [1000.0 + 10 * n for n in range(ROWS)],
}
OWN_TIMES: dict[str, Callable[[datetime], str]] = {
    "%minguo": lambda day: f"{day.year - 1911}/{day:%m/%d}",
    "%epoch": lambda day: str((day - datetime(1970, 1, 1)) // timedelta(seconds=1)),
    "%milli": lambda day: str((day - datetime(1970, 1, 1)) // timedelta(milliseconds=1)),
    "%serial": lambda day: str((day - datetime(1899, 12, 30)).days),
}
"""Forms that strftime does not know."""
FIELDS = {"open": "o", "high": "h", "low": "l", "close": "c", "volume": "v"}


def point(value: float) -> str:
    return f"{value:.2f}"


def comma(value: float) -> str:
    """As in 1.234,50."""
    return f"{value:,.2f}".translate(str.maketrans(",.", ".,"))


def rows(
    order: str = "tohlcv",
    time: str = "%Y-%m-%d",
    separator: str = ",",
    number: Callable[[float], str] = point,
    tail: str = "",
) -> list[str]:
    """Lines of time (t), prices and volume in `order`; other letters stand for themselves."""
    lines = []
    for row, day in enumerate(DAYS):
        cells = []
        for name in order:
            if name == "t":
                cells.append(OWN_TIMES[time](day) if time in OWN_TIMES else day.strftime(time))
            else:
                cells.append(number(CANDLES[name][row]) if name in CANDLES else name)
        lines.append(separator.join(cells) + tail)
    return lines


def file(header: str, lines: Sequence[str], encoding: str = "utf-8", below: str = "") -> bytes:
    """A file of `header`, which can be several lines, `lines`, and a line below them."""
    parts = [*([header] if header else []), *lines, *([below] if below else [])]
    return ("\n".join(parts) + "\n").encode(encoding)


PLAIN = "Date,Open,High,Low,Close,Volume"
SOURCES: dict[str, bytes] = {
    "ariva": file(
        "Datum;Erster;Hoch;Tief;Schlusskurs;Stuecke;Volumen",
        rows(separator=";", number=comma, tail=";9,5"),
    ),
    "comdirect": file(
        "Datum;Eröffnung;Hoch;Tief;Schluss;Volumen",
        rows(time="%d.%m.%Y", separator=";", number=comma),
        "cp1252",
    ),
    "investing, German": file(
        '"Datum","Zuletzt","Eröffn.","Hoch","Tief","Vol.","+/- %"',
        [f'"{line}"' for line in rows("tcohlv0", "%d.%m.%Y", '","', comma, "%")][::-1],
    ),
    "Japanese": file("日付,始値,高値,安値,終値,出来高", rows(time="%Y/%m/%d"), "cp932"),
    "Japanese, dates in words": file(
        "日付け,終値,始値,高値,安値,出来高,変化率 %", rows("tcohlv", "%Y年%m月%d日", tail=",1%")
    ),
    "Korean": file("날짜,종가,시가,고가,저가,거래량", rows("tcohlv", "%Y- %m- %d"), "euc_kr"),
    "Taiwanese": file("日期,開盤價,最高價,最低價,收盤價,成交股數", rows(time="%minguo"), "big5"),
    "Chinese, with units": file(
        "交易日期,开盘价(元),最高价(元),最低价(元),收盘价(元),成交量(手)", rows(), "gb18030"
    ),
    "TDX": file(
        "600000 浦发银行 日线 前复权\n  日期\t  开盘\t  最高\t  最低\t  收盘\t  成交量",
        rows(time="%Y/%m/%d", separator="\t"),
        "gb18030",
        "#数据来源:通达信",
    ),
    "Russian": file(
        "Дата;Открытие;Максимум;Минимум;Закрытие;Объем",
        rows(time="%d.%m.%Y", separator=";", number=comma),
        "cp1251",
    ),
    "French": file(
        "Date;Ouverture;Plus haut;Plus bas;Clôture;Volume",
        rows(time="%d/%m/%Y", separator=";", number=comma),
        "cp1252",
    ),
    "CryptoDataDownload": file(
        "https://www.example.com\nunix,date,symbol,open,high,low,close,Volume A,Volume USD",
        [f"1,{line},9" for line in rows("tXohlcv", "%Y-%m-%d %H:%M:%S")][::-1],
    ),
    "Kraken, no header": file("", rows(time="%epoch")),
    "MetaTrader 4, no header": file("", rows(time="%Y.%m.%d,09:00")),
    "HistData, no header": file("", rows(time="%Y%m%d 170000", separator=";")),
    "Stooq": file(
        "<TICKER>,<PER>,<DATE>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>",
        [f"A.US,D,{line}" for line in rows(time="%Y%m%d,93000")],
    ),
    "Nasdaq": file(
        "Date,Close/Last,Volume,Open,High,Low",
        rows("tcvohl", "%m/%d/%Y", number=lambda value: f"${value}")[::-1],
    ),
    "Barchart": file(
        'Time,Open,High,Low,Latest,Change,%Change,Volume,"Open Int"',
        rows("tohlc1%v", "%m/%d/%Y", tail=",3")[::-1],
        below='"Downloaded from Barchart.com as of 01-20-2024 03:35am CST"',
    ),
    "WSJ": file("Date, Open, High, Low, Close", rows("tohlc", "%m/%d/%y")[::-1]),
    "NSE": file(
        "Date ,series ,OPEN ,HIGH ,LOW ,PREV. CLOSE ,ltp ,close ,vwap,VOLUME ",
        rows("tEohl11c1v", "%d-%b-%Y"),
    ),
    "BSE": file(
        "Date,Open Price,High Price,Low Price,Close Price,WAP,No.of Shares",
        rows("tohlc1v", "%d-%B-%Y"),
    ),
    "Bybit": file("startTime,openPrice,highPrice,lowPrice,closePrice,volume", rows(time="%milli")),
    "OKX": file("ts,o,h,l,c,vol,volCcy,volCcyQuote,confirm", rows("tohlcv111", "%epoch")),
    "Interactive Brokers": file(PLAIN, rows(time="%Y%m%d 09:30:00 US/Eastern")),
    "pandas-datareader": file(
        "Attributes,Close,High,Low,Open,Volume\nSymbols,A,A,A,A,A\nDate,,,,,", rows("tchlov")
    ),
    "separator in a line of its own": file(
        "sep=;\ndate;open;high;low;close;volume", rows(separator=";", number=comma)
    ),
    "serial days": file(PLAIN, rows(time="%serial")),
    "R, index without a name": file("Open,High,Low,Close,Volume", rows()),
    "title and total": file(f"Prices of A\n\n{PLAIN}", rows(), below="Total,,,,,123"),
    "spaces": file("  Date   Open   High   Low  Close  Volume", rows(separator="   ")),
    "trailing separators": file(f"{PLAIN},", rows(tail=",")),
    "comments": file(f"# by hand\n{PLAIN}\n# more", rows(), below="# end"),
    "quotes": file(
        '"Date","Open","High","Low","Close","Volume"',
        [f'"{line}"' for line in rows(separator='","')],
    ),
    "currency": file(
        "Date;Open;High;Low;Close",
        rows("tohlc", separator=";", number=lambda value: f"{value} EUR"),
    ),
    "weekdays": file("Date;Open;High;Low;Close", rows("tohlc", "%a %Y-%m-%d", ";")),
    "a name of one's own for time": file("When,Open,High,Low,Close,Volume", rows()),
    "volume of dashes": file(PLAIN, rows("tohlc-")),
}


@pytest.mark.parametrize("source", SOURCES)
def test_file_of_a_source_holds_its_candles(source: str) -> None:
    candles = read_candles(SOURCES[source])
    for name in set(FIELDS).intersection(candles.columns):
        np.testing.assert_allclose(candles.columns[name], CANDLES[FIELDS[name]], rtol=1e-12)
    assert set(FIELDS) - {"volume"} <= set(candles.columns)
    assert candles.timestamps[0].startswith("2024-01-02")
    assert candles.timestamps[-1].startswith("2024-01-15")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['[{"open": 1}]'], "looks like JSON; CSV is needed"),
        (["<!DOCTYPE html>"], "looks like HTML"),
        (["Time,Open,High,Low,Close", *rows("tohlc", "09:%d")], "has a time of day alone"),
        (["Date,Open,High,Low,Close", *rows("tohlc", "%y/%m/%d")], "needs --time-format"),
        (["Date,Open,High,Low,Close", *rows("tohlc", "%Q")], "is no known timestamp"),
        (["Date,Open,High,Low", *rows("tohl")], 'no column close; found "Date", "Open"'),
        (["Date;Open;High;Low;Close", *rows("tohlc")], "--sep ';'"),
    ],
)
def test_error_names_what_was_found_and_what_helps(lines: Sequence[str], message: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        read_candles("\n".join(lines).encode())
    assert message in str(refused.value)
