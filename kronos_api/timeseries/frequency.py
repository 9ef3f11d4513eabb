"""Steps that repeat: pandas offsets such as 5min, 1h, 1D, B, W-FRI or MS.

Steps as ccxt, Binance and yfinance write them (1m, 1d, 1w, 1mo) and pandas' old names (5T, 1H, M)
are taken as well. A lone m could be minutes or months, so it needs a number, and means minutes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kronos_api.timeseries.timestamps import Timestamps, instants_of_local, microseconds
from kronos_api.timeseries.zones import changing_zone
from kronos_api.violations import invalid_field

FORM: Final = (
    "a step of one second to one year: 15min, 1h, 1D, 7D; B, W-FRI, MS, ME, QE (pandas offsets);"
    " 1m (a minute), 4h, 1d, 1w or 1mo"
)
GIVE: Final = "given, because it cannot be inferred from timestamps, such as 15min, 1h or 1D"

LATE_IN_MONTH: Final = 22
EARLY_IN_MONTH: Final = 10
"""Days of a month between which no last and no first trading day lies."""
MONTH: Final = "mo"
"""The unit of months that go on as the history has them: first, last, or the same day."""
DAY: Final = timedelta(days=1)
YEAR: Final = timedelta(days=366)

_FIXED = {
    "s": timedelta(seconds=1),
    "min": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "D": DAY,
}
_MONTHS = "JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC"
# Steps of no fixed length, by the least time that one takes.
_CALENDAR = (
    (re.compile(r"B"), DAY),
    (re.compile(r"W(-(MON|TUE|WED|THU|FRI|SAT|SUN))?"), timedelta(days=7)),
    (re.compile(rf"B?M[ES]|{MONTH}"), timedelta(days=28)),
    (re.compile(rf"B?Q[ES](-({_MONTHS}))?"), timedelta(days=90)),
    (re.compile(rf"B?Y[ES](-({_MONTHS}))?"), timedelta(days=365)),
)
# Names that are inferred, the range of their lengths in days, and where each can be anchored.
_LONG = (
    (("MS", "ME", "BMS", "BME"), (28, 35), ("",)),
    (("QS", "QE", "BQS", "BQE"), (87, 96), ("-JAN", "-FEB", "-MAR")),
    (("YS", "YE", "BYS", "BYE"), (362, 370), tuple(f"-{name}" for name in _MONTHS.split("|"))),
)
# Other names of units, and ours; months and weeks have their own.
_ALIASES = {
    **{"T": "min", "m": "min", "H": "h", "S": "s", "sec": "s", "d": "D"},
    **{"MIN": "min", "SEC": "s"},
    **{"M": MONTH, "BM": "BME", "Q": "QE", "BQ": "BQE", "A": "YE", "Y": "YE", "y": "YE"},
}
_WEEKS = ("w", "wk")
_FORM = re.compile(r"(\d{0,8})([A-Za-z]+(?:-[A-Z]{3})?)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Frequency:
    """The step from one timestamp to the next.

    `step` is its length where that is fixed (seconds to days), else None.
    """

    text: str
    step: timedelta | None

    @property
    def daily(self) -> bool:
        """One step is a day or a business day."""
        return self.text in ("D", "1D", "B", "1B")

    @property
    def intraday(self) -> bool:
        """One step is shorter than a day."""
        return self.step is not None and self.step < DAY

    def following(self, history: Timestamps, horizon: int) -> Timestamps:
        """The next `horizon` timestamps, on the local time of the last one.

        Steps with an anchor (month ends, Fridays, ...) go on from the first anchor after it. The
        offset stays the last one, unless the history shows a change of the clock: then it follows
        that zone's clock, and steps shorter than a day keep their length over a change.
        """
        datetimes = self._next(history, horizon)
        zone = changing_zone(history)
        if zone is None:
            return history.continued(datetimes)
        instants = (
            history.continued(datetimes).instants
            if self.intraday
            else instants_of_local(microseconds(datetimes), zone)
        )
        return history.continued_in(zone, instants)

    def _next(self, history: Timestamps, horizon: int) -> list[datetime]:
        """The next `horizon` naive datetimes."""
        last = history.datetimes[-1]
        if self.step is not None:
            return [last + self.step * k for k in range(1, horizon + 1)]
        if _unit(self.text) == MONTH:
            return self._months(history, horizon)
        # Two more than needed: the last timestamp may itself be an anchor, or lie shortly before
        # that at the end of its own period, as the last trading day of a month does.
        days: list[datetime] = list(
            pd.date_range(last, periods=horizon + 2, freq=self.text).to_pydatetime()
        )
        unit = _unit(self.text)
        half = _least(unit) / 2
        at_end = not unit.partition("-")[0].endswith("S")  # MS, BMS, QS, ... begin their periods
        in_steps = at_end and len(history) > 1 and last - history.datetimes[-2] >= half
        after = last + half if in_steps else last
        return [day for day in days if day > after][:horizon]

    def _months(self, history: Timestamps, horizon: int) -> list[datetime]:
        count = self.text.removesuffix(MONTH)
        if named := _in_the_calendar(history, _LONG[0][1][0]):
            return Frequency(f"{count}{named}", None)._next(history, horizon)
        last = pd.Timestamp(history.datetimes[-1])
        steps = [pd.DateOffset(months=int(count or 1) * k) for k in range(1, horizon + 1)]
        return [(last + step).to_pydatetime() for step in steps]


def _least(unit: str) -> timedelta:
    """The least time that one step of `unit`, of no fixed length, takes; 0 if it is not known."""
    return next((least for form, least in _CALENDAR if form.fullmatch(unit)), timedelta())


def _unit(text: str) -> str:
    match = _FORM.fullmatch(text)
    return match[2] if match else ""


def parse_frequency(text: str) -> Frequency:
    """The frequency that `text` names; raises `InvalidFields`."""
    match = _FORM.fullmatch(text)
    if match is None:
        raise invalid_field("freq", FORM)
    count, unit = int(match[1] or 1), match[2]
    if unit == "m" and not match[1]:
        raise invalid_field(
            "freq", "1m or min for a minute, 1mo or ME for a month; m may be either"
        )
    if unit in _WEEKS:
        count, unit, text = 7 * count, "D", f"{7 * count}D"
    else:
        base, dash, anchor = unit.partition("-")
        unit = _ALIASES.get(base, base) + dash + anchor
        text = match[1] + unit
    length = _FIXED[unit] if unit in _FIXED else _least(unit)
    if not 1 <= length.total_seconds() * count <= YEAR.total_seconds():
        raise invalid_field("freq", FORM)
    return Frequency(text, length * count if unit in _FIXED else None)


def infer_frequency(history: Timestamps) -> Frequency:
    """The step that `history` repeats; raises `InvalidFields` where there is none to see.

    The commonest step counts, if more than half of the steps are of its length, so gaps do no
    harm. Daily timestamps that skip weekends are business days; steps of four weeks and more are
    told apart by where they lie in the calendar.
    """
    if len(history) < 3:
        raise invalid_field("freq", GIVE)
    lengths, counts = np.unique(np.diff(history.instants), return_counts=True)
    step = timedelta(microseconds=int(lengths[counts.argmax()]))
    if named := _in_the_calendar(history, step.days):
        return Frequency(named, None)
    if 2 * counts.max() <= counts.sum() or step % timedelta(seconds=1) or _varies(lengths, step):
        raise invalid_field("freq", GIVE)
    if step == DAY and _skips_weekends(history):
        return Frequency("B", None)
    days, rest = divmod(step, DAY)
    text = f"{step // timedelta(seconds=1)}s" if rest else f"{days}D"
    return Frequency(text, step)


def _varies(lengths: NDArray[np.int64], step: timedelta) -> bool:
    """Whether steps of four weeks and more are now and then some days longer or shorter.

    Months, quarters and years are, wherever in them the timestamps lie; gaps are longer than that.
    """
    apart = np.abs(lengths - step // timedelta(microseconds=1))
    days = apart / (DAY // timedelta(microseconds=1))
    # A change of the clock is no more than a few hours.
    return step.days >= 28 and bool(((days > 0.5) & (days < 10)).any())


def _skips_weekends(history: Timestamps) -> bool:
    weekdays = np.array([naive.weekday() for naive in history.datetimes])
    goes_over = (np.diff(weekdays) < 0).any()  # from one week into the next
    return bool(goes_over and (weekdays < 5).all())


def _in_the_calendar(history: Timestamps, days: int) -> str | None:
    """The name of months, quarters or years on whose first or last (business) days all lie."""
    for units, (least, most), anchors in _LONG:
        if not least <= days <= most:
            continue
        for name in (unit + anchor for unit in units for anchor in anchors):
            offset = pd.tseries.frequencies.to_offset(name)
            if all(offset.is_on_offset(naive) for naive in history.datetimes):
                return name
    return _months_of_trading_days(history)


def _months_of_trading_days(history: Timestamps) -> str | None:
    """BME or BMS for one timestamp in each month, in its last or first days; holidays move them."""
    months = np.array([12 * naive.year + naive.month for naive in history.datetimes])
    days = np.array([naive.day for naive in history.datetimes])
    if (np.diff(months) != 1).any():
        return None
    if (days >= LATE_IN_MONTH).all():
        return "BME"
    return "BMS" if (days <= EARLY_IN_MONTH).all() else None
