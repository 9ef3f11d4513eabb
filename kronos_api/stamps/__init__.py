"""Time stamps of a series: read as written, continued as the caller would continue them.

`series` reads and writes stamps, `frequency` knows steps that repeat, `calendars` knows the
trading hours of exchanges.
"""

from kronos_api.stamps.calendars import Calendars
from kronos_api.stamps.frequency import Frequency, infer_frequency, parse_frequency
from kronos_api.stamps.refusal import Breach, Refusal, refusal
from kronos_api.stamps.series import Stamps, is_stamp, parse_stamps

__all__ = [
    "Breach",
    "Calendars",
    "Frequency",
    "Refusal",
    "Stamps",
    "infer_frequency",
    "is_stamp",
    "parse_frequency",
    "parse_stamps",
    "refusal",
]
