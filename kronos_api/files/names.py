"""Names that data sources give to the columns of candles."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Final

TIME: Final = "time"
CLOCK: Final = "clock"
"""The time of day, where it is a column of its own beside the date."""


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


# Of several names that a file has, the first of these counts.
NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    TIME: _names(
        "timestamps, timestamp, datetime, date time, date, time, open time, trade date, trade time,"
        "tradedate, opentime, start time, gmt time, local time, trading date, trading day, begin,"
        "day, dt, ts, t, 日期时间, 日期, 时间, 交易日期, 交易时间, 交易日, 成交日期, 年月日, 日付,"
        "日付け, 日時, 時間, 日期時間, 날짜, 일자, 일시, 시간, datum, zeit, zeitpunkt, datum zeit,"
        "fecha, data, дата, unix, unix timestamp, epoch, week, month"
    ),
    "open": _names(
        "open, o, open price, opening price, first, 1 open, 开盘, 开盘价, 今开, 今开盘, 开, 開盤,"
        "開盤價, 開盤指數, 始値, 始値 円, 시가, eröffnung, eröffnungskurs, eröffn, eroeffnung,"
        "erster, anfang, ouverture, ouv, apertura, otwarcie, abertura, открытие, цена откр, откр"
    ),
    "high": _names(
        "high, h, high price, day high, 2 high, max, 最高, 最高价, 高, 最高價, 最高指數, 高値,"
        "고가, hoch, tageshoch, höchst, höchstkurs, plus haut, haut, máximo, maximo, máx, massimo,"
        "najwyzszy, najwyższy, máxima, максимум, макс, макс цена"
    ),
    "low": _names(
        "low, l, low price, day low, 3 low, min, 最低, 最低价, 低, 最低價, 最低指數, 安値, 저가,"
        "tief, tagestief, tiefst, tiefstkurs, plus bas, bas, mínimo, minimo, mín, najnizszy,"
        "najniższy, mínima, минимум, мин, мин цена"
    ),
    "close": _names(
        "close, c, close price, closing price, 4 close, close last, last, last price, latest,"
        "settle, price, 收盘, 收盘价, 最新价, 收, 收盤, 收盤價, 收盤指數, 終値, 종가, 현재가,"
        "schluss, schlusskurs, letzter, zuletzt, kurs, clôture, cloture, dernier, cierre, último,"
        "ultimo, chiusura, zamkniecie, zamknięcie, fechamento, закрытие, цена,"
        "adj close, adjusted close"
    ),
    "volume": _names(
        "volume, vol, v, 5 volume, base volume, volume base, tick volume, tickvol, qty, quantity,"
        "shares traded, no of shares, total traded quantity, total trade quantity, trading volume,"
        "share volume, 成交量, 总手, 成交股數, 成交数量, 出来高, 거래량, 누적거래량, stuecke,"
        "stücke, stück, handelsvolumen, volumen, volumes, wolumen, объем, объём, umsatz stück"
    ),
    "amount": _names(
        "amount, quote volume, quote asset volume, quotevolume, volume quote, value, money,"
        "turnover, total turnover, total turnover rs, traded value, vol ccy quote, 成交额,"
        "成交金额, 成交金額, 金额, 売買代金, 거래대금"
    ),
}
"""Names of each column as `plain` writes them."""
SYMBOLS: Final = _names(
    "symbol, ticker, ts code, code, 股票代码, 代码, 證券代號, 証券コード, コード, 종목코드,"
    "unique id, pair, figi, isin, instrument, security"
)
DATES: Final = _names("date, 日期, trade date, tradedate, day, dt, datum, 日付, 날짜, 일자")
"""Names of a date beside which a time of day may stand."""
CLOCKS: Final = _names("time, 时间, trade time, hour, zeit, uhrzeit, 時刻, 시간, hora")
QUOTE_CURRENCIES: Final = frozenset(
    _names("usd, usdt, usdc, busd, fdusd, tusd, dai, eur, gbp, jpy, krw, cny, inr, try, brl, aud")
)
"""A volume in one of these is an amount: Volume USD."""
NOT_CURRENCIES: Final = frozenset(_names("ma, sma, ema, avg, chg, ccy, pct"))
"""Second words of columns that are no volume: Volume MA."""

_PUNCTUATION = re.compile(r"[^\w]+|_")
_UNIT = re.compile(r"[(（\[].*?[)）\]]")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_FIELD_OF: Final = {name: field for field, names in NAMES.items() for name in names}


def plain(name: str) -> str:
    """`name` as `NAMES` has it.

    `<TICK_VOL>` is `tick vol`, `openPrice` and `Open Price (USD)` are `open price`, `Volume BTC` is
    `volume`, and `Volume USD` is `quote volume`.
    """
    name = _CAMEL.sub(" ", unicodedata.normalize("NFKC", name))
    whole = _squeezed(name)
    if whole in _FIELD_OF or whole in SYMBOLS:
        return whole
    words = whole.split()
    if len(words) == 2 and words[0] in ("volume", "vol"):
        if words[1] in QUOTE_CURRENCIES:
            return "quote volume"
        if words[1].isascii() and 2 <= len(words[1]) <= 5 and words[1] not in NOT_CURRENCIES:
            return "volume"
    return _squeezed(_UNIT.sub(" ", name)) or whole


def _squeezed(name: str) -> str:
    return " ".join(_PUNCTUATION.sub(" ", name.lower()).split())


def fields_of(cells: Sequence[str]) -> set[str]:
    """The fields whose names are among `cells`."""
    return {field for cell in cells if (field := _FIELD_OF.get(plain(cell[:64])))}


def described(names: Sequence[str]) -> str:
    """Column names for a message: the first twenty, in quotes."""
    shown = ", ".join(f'"{name[:40]}"' for name in names[:20])
    return shown + (f" and {len(names) - 20} more" if len(names) > 20 else "")
