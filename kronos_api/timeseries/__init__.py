"""Time stamps of a series: read as written, continued as the caller would continue them.

`timestamps` reads and writes stamps, `frequency` knows steps that repeat, `calendars` knows the
trading hours of exchanges.
"""

from kronos_api.timeseries.calendars import Calendars
from kronos_api.timeseries.frequency import Frequency, infer_frequency, parse_frequency
from kronos_api.timeseries.timestamps import Timestamps, is_timestamp, parse_timestamps

__all__ = [
    "Calendars",
    "Frequency",
    "Timestamps",
    "infer_frequency",
    "is_timestamp",
    "parse_frequency",
    "parse_timestamps",
]
