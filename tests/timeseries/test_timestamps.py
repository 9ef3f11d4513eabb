"""Timestamps as text: what is read, and how others like them are written."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kronos_api.timeseries import parse_timestamps
from kronos_api.violations import InvalidFields


@pytest.mark.parametrize(
    ("text", "wall", "offset"),
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
    ],
)
def test_what_is_read(text: str, wall: datetime, offset: int | None) -> None:
    stamps = parse_timestamps([text], "timestamps")
    assert list(stamps.walls) == [wall]
    assert stamps.offset == (None if offset is None else timedelta(minutes=offset))
    assert stamps.aware == (offset is not None)
    instant = wall - timedelta(minutes=offset or 0) - datetime(1970, 1, 1)
    assert stamps.instants.tolist() == [instant // timedelta(microseconds=1)]
    # With one of another form they are read one by one.
    both = parse_timestamps([text, "2200-12-31 00:00:00.00000" + "Z" * stamps.aware], "timestamps")
    assert both.walls[0] == wall
    assert both.instants[0] == stamps.instants[0]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "20240102",
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
    ("like", "wall", "text"),
    [
        ("2024-01-02", datetime(2024, 1, 3), "2024-01-03"),
        ("2024-01-02", datetime(2024, 1, 3, 4), "2024-01-03T04:00"),
        ("2024-01-02 03:04", datetime(2024, 1, 3), "2024-01-03 00:00"),
        ("2024-01-02T03:04Z", datetime(2024, 1, 3, 4, 5, 6), "2024-01-03T04:05:06Z"),
        ("2024-01-02T03:04:05.000", datetime(2024, 1, 3, 4), "2024-01-03T04:00:00.000"),
        ("2024-01-02T03:04:05", datetime(2024, 1, 3, 4, 0, 0, 5), "2024-01-03T04:00:00.000005"),
        ("2024-01-02T03:04:05.123456789z", datetime(2024, 1, 3), "2024-01-03T00:00:00.000000000z"),
        ("2024-01-02t03:04+0530", datetime(2024, 1, 3), "2024-01-03t00:00+0530"),
    ],
)
def test_how_others_are_written(like: str, wall: datetime, text: str) -> None:
    stamps = parse_timestamps([like], "timestamps")
    assert list(stamps.continued([wall]).texts) == [text]


@given(
    st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1)),
    st.sampled_from(["", "Z", "+02:00", "-0930"]),
)
def test_what_is_written_reads_back(wall: datetime, zone: str) -> None:
    like = parse_timestamps([f"2024-01-02T03:04:05.123456{zone}"], "timestamps")
    written = like.continued([wall])
    back = parse_timestamps(written.texts, "timestamps")
    assert list(back.walls) == [wall]
    assert back.instants.tolist() == written.instants.tolist()


def test_order_is_that_of_instants() -> None:
    texts = ["2024-01-01T12:00+02:00", "2024-01-01T11:30+01:00", "2024-01-01T11:00Z"]
    stamps = parse_timestamps(texts, "timestamps")
    assert len(stamps) == 3
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
def test_stamps_that_are_made_have_one_form(last: str, step: float, texts: list[str]) -> None:
    history = parse_timestamps([last], "timestamps")
    walls = [history.walls[0] + timedelta(hours=step) * number for number in (1, 2, 3)]
    assert history.continued(walls).texts == texts


CLOCKS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dt%H:%M:%S.%f"]


@given(
    st.lists(st.datetimes(datetime(1700, 1, 1), datetime(2200, 12, 31)), min_size=2, unique=True),
    st.sampled_from(CLOCKS),
    st.sampled_from(["", "Z", "-0930"]),
    st.data(),
)
def test_many_are_read_as_one(
    walls: list[datetime], clock: str, zone: str, data: st.DataObject
) -> None:
    zone = zone if "%H" in clock else ""
    texts = sorted({f"{wall:{clock}}{zone}" for wall in walls})
    stamps = parse_timestamps(texts, "timestamps")
    alone = [parse_timestamps([text], "timestamps") for text in texts]
    assert list(stamps.walls) == [
        datetime.strptime(text.removesuffix(zone), clock) for text in texts
    ]
    assert stamps.instants.tolist() == [one.instants[0] for one in alone]
    assert (stamps.style, stamps.offset) == (alone[-1].style, alone[-1].offset)

    # One character is another: what is wrong with it, or what it means, is told as of one text.
    number = data.draw(st.integers(0, len(texts) - 1))
    at = data.draw(st.integers(0, len(texts[number]) - 1))
    other = data.draw(st.sampled_from("0123456789-+:.TZ /\n\u0661"))
    texts[number] = texts[number][:at] + other + texts[number][at + 1 :]
    try:
        (wall,) = parse_timestamps([texts[number]], "timestamps").walls
    except InvalidFields as error:
        expected = replace(error.violations[0], index=number)
        with pytest.raises(InvalidFields) as caught:
            parse_timestamps(texts, "timestamps")
        assert caught.value.violations == [expected]
    else:
        with suppress(InvalidFields):
            assert parse_timestamps(texts, "timestamps").walls[number] == wall
