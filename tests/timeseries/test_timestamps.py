"""Timestamps are read from text and others like them are written."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kronos_api.timeseries import parse_timestamps
from kronos_api.violations import InvalidFields


@pytest.mark.parametrize(
    ("text", "naive", "offset"),
    [
        ("2024-01-02", datetime(2024, 1, 2), None),
        ("2024-01-02T03:04", datetime(2024, 1, 2, 3, 4), None),
        ("2024-01-02 03:04:05", datetime(2024, 1, 2, 3, 4, 5), None),
        ("2024-01-02t03:04:05z", datetime(2024, 1, 2, 3, 4, 5), 0),
        ("2024-01-02T03:04Z", datetime(2024, 1, 2, 3, 4), 0),
        ("2024-01-02T03:04:05.5Z", datetime(2024, 1, 2, 3, 4, 5, 500_000), 0),
        ("2024-01-02T03:04:05.123456789Z", datetime(2024, 1, 2, 3, 4, 5, 123_456), 0),
        ("2024-01-02T03:04:05+05:30", datetime(2024, 1, 2, 3, 4, 5), 330),
        ("2024-01-02T03:04:05-0330", datetime(2024, 1, 2, 3, 4, 5), -210),
        ("2024-01-02T03:04:05-08", datetime(2024, 1, 2, 3, 4, 5), -480),
        ("1700-01-01T00:00:00+23:59", datetime(1700, 1, 1), 1439),
        ("20240102", datetime(2024, 1, 2), None),
        ("20240102T0304", datetime(2024, 1, 2, 3, 4), None),
        ("20240102T030405Z", datetime(2024, 1, 2, 3, 4, 5), 0),
        ("20240102T030405.5+0530", datetime(2024, 1, 2, 3, 4, 5, 500_000), 330),
    ],
)
def test_what_is_read(text: str, naive: datetime, offset: int | None) -> None:
    timestamps = parse_timestamps([text], "timestamps")
    assert list(timestamps.datetimes) == [naive]
    assert timestamps.offset == (None if offset is None else timedelta(minutes=offset))
    assert timestamps.aware == (offset is not None)
    instant = naive - timedelta(minutes=offset or 0) - datetime(1970, 1, 1)
    assert timestamps.instants.tolist() == [instant // timedelta(microseconds=1)]
    # With one of another form they are read one by one.
    both = parse_timestamps(
        [text, "2200-12-31 00:00:00.00000" + "Z" * timestamps.aware], "timestamps"
    )
    assert both.datetimes[0] == naive
    assert both.instants[0] == timestamps.instants[0]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2024010",
        "2024-0102",
        "202401-02",
        "20240102T03:04",
        "20240102T030",
        "2024-1-2",
        "2024-01-02Z",
        "2024-W01-1",
        "2024-13-01",
        "2023-02-29",
        "2024-01-02T",
        "2024-01-02T03",
        "2024-01-02T24:00",
        "2024-01-02T03:60",
        "2024-01-02T03:04:60",
        "2024-01-02T03:04.5",
        "2024-01-02T03:04:05.",
        "2024-01-02T03:04:05,5",
        "2024-01-02T03:04:05.1234567891",
        "2024-01-02T03:04:05+24:00",
        "2024-01-02T03:04:05+5:30",
        "2024-01-02T03:04:05 Z",
        "2024-01-02T03:04:05Z\n",
        " 2024-01-02",
        "2201-01-01",
        "٢٠٢٤-٠١-٠٢",
    ],
)
def test_what_is_not(text: str) -> None:
    with pytest.raises(InvalidFields, match=r"timestamps\[0\] must be an ISO 8601"):
        parse_timestamps([text], "timestamps")


@pytest.mark.parametrize(
    ("like", "naive", "text"),
    [
        ("2024-01-02", datetime(2024, 1, 3), "2024-01-03"),
        ("2024-01-02", datetime(2024, 1, 3, 4), "2024-01-03T04:00"),
        ("2024-01-02 03:04", datetime(2024, 1, 3), "2024-01-03 00:00"),
        ("2024-01-02T03:04Z", datetime(2024, 1, 3, 4, 5, 6), "2024-01-03T04:05:06Z"),
        ("2024-01-02T03:04:05.000", datetime(2024, 1, 3, 4), "2024-01-03T04:00:00.000"),
        ("2024-01-02T03:04:05", datetime(2024, 1, 3, 4, 0, 0, 5), "2024-01-03T04:00:00.000005"),
        ("2024-01-02T03:04:05.123456789z", datetime(2024, 1, 3), "2024-01-03T00:00:00.000000000z"),
        ("2024-01-02t03:04+0530", datetime(2024, 1, 3), "2024-01-03t00:00+0530"),
        ("20240102T030405Z", datetime(2024, 1, 3, 4), "20240103T040000Z"),
        ("20240102", datetime(2024, 1, 3), "20240103"),
        ("20240102", datetime(2024, 1, 3, 4), "20240103T0400"),
    ],
)
def test_how_others_are_written(like: str, naive: datetime, text: str) -> None:
    timestamps = parse_timestamps([like], "timestamps")
    assert list(timestamps.continued([naive]).texts) == [text]


@given(
    st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1)),
    st.sampled_from(["", "Z", "+02:00", "-0930"]),
)
def test_what_is_written_reads_back(naive: datetime, zone: str) -> None:
    like = parse_timestamps([f"2024-01-02T03:04:05.123456{zone}"], "timestamps")
    written = like.continued([naive])
    back = parse_timestamps(written.texts, "timestamps")
    assert list(back.datetimes) == [naive]
    assert back.instants.tolist() == written.instants.tolist()


def test_order_is_that_of_instants() -> None:
    texts = ["2024-01-01T12:00+02:00", "2024-01-01T11:30+01:00", "2024-01-01T11:00Z"]
    timestamps = parse_timestamps(texts, "timestamps")
    assert len(timestamps) == 3
    with pytest.raises(InvalidFields) as caught:
        parse_timestamps([texts[0], texts[0], *texts[2:0:-1]], "timestamps")
    assert [violation.index for violation in caught.value.violations] == [1, 3]


def test_a_series_that_is_newest_first_is_called_so() -> None:
    texts = ["2025-06-03", "2025-06-02", "2025-06-01"]
    with pytest.raises(
        InvalidFields, match="timestamps must be oldest first; these are newest first"
    ):
        parse_timestamps(texts, "timestamps")


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("1748856600", "1748856600000 (ms) is 2025-06-02T09:30:00Z"),
        ("1748856600000", "1748856600 (seconds)"),
        ("2025-06-02 09:30:00 UTC", "write Z for UTC"),
        ("2025-06-02 09:30:00 +0800", "write the offset without a space"),
        ("2025-06-02 09:30:00 America/New_York", "write the offset, not the zone"),
        ("06/02/2025 09:30", "write the year first"),
        ("2025/6/2", "with hyphens and two digits"),
    ],
)
def test_forms_that_are_often_tried_get_a_hint(text: str, hint: str) -> None:
    with pytest.raises(InvalidFields) as caught:
        parse_timestamps([text], "timestamps")
    (violation,) = caught.value.violations
    assert "such as 2025-06-02T09:30:00Z" in violation.constraint
    assert hint in violation.constraint


@pytest.mark.parametrize(
    ("texts", "hint"),
    [
        (["2024-11-03 00:00", "2024-11-03 01:00", "2024-11-03 01:00"], True),
        (["2024-11-03 01:30", "2024-11-03 01:45", "2024-11-03 01:00"], True),
        # not at night, more than an hour, with offsets, dates
        (["2024-11-03 08:00", "2024-11-03 09:00", "2024-11-03 09:00"], False),
        (["2024-11-03 02:00", "2024-11-03 03:00", "2024-11-03 01:00"], False),
        (["2024-11-03 00:00Z", "2024-11-03 01:00Z", "2024-11-03 01:00Z"], False),
        (["2024-11-02", "2024-11-03", "2024-11-03"], False),
    ],
)
def test_a_local_hour_that_repeats_asks_for_offsets(texts: list[str], hint: bool) -> None:
    with pytest.raises(InvalidFields, match=r"timestamps\[2\] must be after the one") as caught:
        parse_timestamps(texts, "timestamps")
    assert ("or give offsets" in caught.value.message) == hint


@pytest.mark.parametrize(
    ("zone", "written"),
    [
        ("+01:00", ["+01:00", "+02:00"]),
        ("+0100", ["+0100", "+0200"]),
        ("+01", ["+01", "+02"]),
    ],
)
def test_offsets_of_a_zone_are_written_in_the_style_of_the_last(
    zone: str, written: list[str]
) -> None:
    last = parse_timestamps([f"2025-03-29T12:00{zone}"], "timestamps")
    day = 86_400_000_000
    instants = last.instants[-1] + np.array([day // 2, day])
    future = last.continued_in(ZoneInfo("Europe/Berlin"), instants)
    assert future.texts == [f"2025-03-30T00:00{written[0]}", f"2025-03-30T13:00{written[1]}"]
    assert parse_timestamps(future.texts, "x").instants.tolist() == instants.tolist()


@pytest.mark.parametrize(
    ("last", "step", "texts"),
    [
        ("2025-03-06", 12, ["2025-03-06T12:00", "2025-03-07T00:00", "2025-03-07T12:00"]),
        (
            "2025-03-06T10:00Z",
            0.0125,
            [f"2025-03-06T10:{at}Z" for at in ("00:45", "01:30", "02:15")],
        ),
        ("2025-03-06 10:59", 1 / 60, [f"2025-03-06 11:{at}" for at in ("00", "01", "02")]),
    ],
)
def test_timestamps_that_are_made_have_one_form(last: str, step: float, texts: list[str]) -> None:
    history = parse_timestamps([last], "timestamps")
    datetimes = [history.datetimes[0] + timedelta(hours=step) * number for number in (1, 2, 3)]
    assert history.continued(datetimes).texts == texts


CLOCKS = [
    *("%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dt%H:%M:%S.%f"),
    *("%Y%m%d", "%Y%m%dT%H%M", "%Y%m%dT%H%M%S"),
]


@given(
    st.lists(st.datetimes(datetime(1700, 1, 1), datetime(2200, 12, 31)), min_size=2, unique=True),
    st.sampled_from(CLOCKS),
    st.sampled_from(["", "Z", "-0930"]),
    st.data(),
)
def test_many_are_read_as_one(
    datetimes: list[datetime], clock: str, zone: str, data: st.DataObject
) -> None:
    zone = zone if "%H" in clock else ""
    texts = sorted({f"{naive:{clock}}{zone}" for naive in datetimes})
    timestamps = parse_timestamps(texts, "timestamps")
    alone = [parse_timestamps([text], "timestamps") for text in texts]
    assert list(timestamps.datetimes) == [
        datetime.strptime(text.removesuffix(zone), clock) for text in texts
    ]
    assert timestamps.instants.tolist() == [one.instants[0] for one in alone]
    assert (timestamps.style, timestamps.offset) == (alone[-1].style, alone[-1].offset)

    # One character is replaced: parsed together, a text has the same error or meaning as alone.
    number = data.draw(st.integers(0, len(texts) - 1))
    at = data.draw(st.integers(0, len(texts[number]) - 1))
    other = data.draw(st.sampled_from("0123456789-+:.TZ /\n\u0661"))
    texts[number] = texts[number][:at] + other + texts[number][at + 1 :]
    try:
        (naive,) = parse_timestamps([texts[number]], "timestamps").datetimes
    except InvalidFields as error:
        expected = replace(error.violations[0], index=number)
        with pytest.raises(InvalidFields) as caught:
            parse_timestamps(texts, "timestamps")
        assert caught.value.violations == [expected]
    else:
        with suppress(InvalidFields):
            assert parse_timestamps(texts, "timestamps").datetimes[number] == naive


def test_long_text_is_refused_without_a_search_for_hints() -> None:
    with pytest.raises(InvalidFields) as refused:
        parse_timestamps(["1 " * 100_000 + "UTC"], "timestamps")
    assert "UTC" not in refused.value.message
