"""Steps that repeat: pandas offsets such as 5min, 1h, 1D, B, W-FRI or MS."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kronos_api.stamps.refusal import refusal
from kronos_api.stamps.series import Stamps

FORM: Final = "a pandas offset of one second to one year, such as 15min, 1h, 1D, B, W-FRI, MS or QE"
GIVE: Final = "given, because it cannot be inferred from timestamps"

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
    (re.compile(r"B?M[ES]"), timedelta(days=28)),
    (re.compile(rf"B?Q[ES](-({_MONTHS}))?"), timedelta(days=90)),
    (re.compile(rf"B?Y[ES](-({_MONTHS}))?"), timedelta(days=365)),
)
# Names that are inferred, the range of their lengths in days, and where each can be anchored.
_LONG = (
    (("MS", "ME", "BMS", "BME"), (28, 35), ("",)),
    (("QS", "QE", "BQS", "BQE"), (87, 96), ("-JAN", "-FEB", "-MAR")),
    (("YS", "YE", "BYS", "BYE"), (362, 370), tuple(f"-{name}" for name in _MONTHS.split("|"))),
)
_FORM = re.compile(r"(\d{0,8})([A-Za-z]+(?:-[A-Z]{3})?)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Frequency:
    """The step from one stamp to the next.

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

    def following(self, history: Stamps, horizon: int) -> Stamps:
        """The next `horizon` stamps on the wall clock of the last one, at its offset.

        Steps with an anchor (month ends, Fridays, ...) go on from the first anchor after it.
        """
        last = history.walls[-1]
        if self.step is not None:
            return history.continued([last + self.step * k for k in range(1, horizon + 1)])
        # One more than needed: the last stamp may itself be an anchor.
        days: list[datetime] = list(
            pd.date_range(last, periods=horizon + 1, freq=self.text).to_pydatetime()
        )
        return history.continued([day for day in days if day > last][:horizon])


def parse_frequency(text: str) -> Frequency:
    """The frequency that `text` names; raises `Refusal`."""
    match = _FORM.fullmatch(text)
    if match is None:
        raise refusal("freq", FORM)
    count, unit = int(match[1] or 1), match[2]
    if unit in _FIXED:
        length = _FIXED[unit]
    else:
        length = next((least for form, least in _CALENDAR if form.fullmatch(unit)), timedelta())
    if not 1 <= length.total_seconds() * count <= YEAR.total_seconds():
        raise refusal("freq", FORM)
    return Frequency(text, length * count if unit in _FIXED else None)


def infer_frequency(history: Stamps) -> Frequency:
    """The step that `history` repeats; raises `Refusal` where there is none to see.

    The commonest step counts, if more than half of the steps are of its length, so gaps do no
    harm. Daily stamps that skip weekends are business days; steps of four weeks and more are
    told apart by where they lie in the calendar.
    """
    if len(history) < 3:
        raise refusal("freq", GIVE)
    lengths, counts = np.unique(np.diff(history.instants), return_counts=True)
    step = timedelta(microseconds=int(lengths[counts.argmax()]))
    if named := _in_the_calendar(history, step.days):
        return Frequency(named, None)
    if 2 * counts.max() <= counts.sum() or step % timedelta(seconds=1) or _varies(lengths, step):
        raise refusal("freq", GIVE)
    if step == DAY and _skips_weekends(history):
        return Frequency("B", None)
    days, rest = divmod(step, DAY)
    text = f"{step // timedelta(seconds=1)}s" if rest else f"{days}D"
    return Frequency(text, step)


def _varies(lengths: NDArray[np.int64], step: timedelta) -> bool:
    """Whether steps of four weeks and more are now and then some days longer or shorter.

    Months, quarters and years are, wherever in them the stamps lie; gaps are longer than that.
    """
    apart = np.abs(lengths - step // timedelta(microseconds=1))
    days = apart / (DAY // timedelta(microseconds=1))
    # A change of the clock is no more than a few hours.
    return step.days >= 28 and bool(((days > 0.5) & (days < 10)).any())


def _skips_weekends(history: Stamps) -> bool:
    weekdays = np.array([wall.weekday() for wall in history.walls])
    goes_over = (np.diff(weekdays) < 0).any()  # from one week into the next
    return bool(goes_over and (weekdays < 5).all())


def _in_the_calendar(history: Stamps, days: int) -> str | None:
    """The name of months, quarters or years on whose first or last (business) days all lie."""
    for units, (least, most), anchors in _LONG:
        if not least <= days <= most:
            continue
        for name in (unit + anchor for unit in units for anchor in anchors):
            offset = pd.tseries.frequencies.to_offset(name)
            if all(offset.is_on_offset(wall) for wall in history.walls):
                return name
    return None
