"""Timestamps of a series: read as written, continued as the caller would continue them.

`parsing` reads timestamps and `timestamps` writes them, `frequency` knows steps that repeat,
`calendars` the trading hours of exchanges, and `features` candles and times as arrays.
"""

from kronos_api.timeseries.bars import BarLabel
from kronos_api.timeseries.calendars import Calendars
from kronos_api.timeseries.continuation import continue_history
from kronos_api.timeseries.exchanges import Exchange, exchanges
from kronos_api.timeseries.frequency import Frequency, infer_frequency, parse_frequency
from kronos_api.timeseries.gaps import Continuation, Gaps, find_gaps
from kronos_api.timeseries.parsing import is_timestamp, parse_timestamps
from kronos_api.timeseries.timestamps import Timestamps

__all__ = [
    "BarLabel",
    "Calendars",
    "Continuation",
    "Exchange",
    "Frequency",
    "Gaps",
    "Timestamps",
    "continue_history",
    "exchanges",
    "find_gaps",
    "infer_frequency",
    "is_timestamp",
    "parse_frequency",
    "parse_timestamps",
]
