"""Names of calendars: codes, aliases, and what is suggested for unknown names."""

from __future__ import annotations

from zoneinfo import ZoneInfo

import pytest

from kronos_api.timeseries import exchanges
from kronos_api.timeseries.exchanges import NO_HOURS, canonical_code
from kronos_api.timeseries.markets import find_markets, markets
from kronos_api.violations import InvalidFields


@pytest.mark.parametrize(
    ("alias", "code"),
    [
        *(("crypto", "24/7"), ("Binance", "24/7"), ("FX", "24/5"), ("NSE", "XBOM")),
        *(("XSHE", "XSHG"), ("xnys", "XNYS"), ("us_futures", "us_futures"), ("HKEX", "XHKG")),
    ],
)
def test_aliases_stand_for_codes_in_any_case(alias: str, code: str) -> None:
    assert canonical_code(alias) == code


def test_an_exchange_without_known_hours_names_one_of_the_same_days() -> None:
    with pytest.raises(InvalidFields, match=r"SHFE is not\. XSHG trades on the same days"):
        canonical_code("shfe")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        # misspelt
        *(("NYSEX", "XNYS"), ("XNYX", "XNYS"), ("XNYSE", "XNYS"), ("NASDQ", "XNYS")),
        # a market, a country, a city, the suffix of a ticker
        *(("Shanghai", "XSHG"), ("US", "XNYS"), ("USA", "XNYS"), ("HK", "XHKG"), ("CN", "XSHG")),
        *(("Hong Kong", "XHKG"), ("India", "XBOM"), ("nifty", "XBOM"), ("JP", "XTKS")),
        *(("Germany", "XETR"), ("Deutsche Börse Frankfurt", "XFRA"), ("UK", "XLON")),
        *(("New York", "XNYS"), ("a-shares", "XSHG"), ("0700.HK", "XHKG"), ("KOSPI", "XKRX")),
        *(("bitcoin", "24/7"), ("BTC/USDT", "24/7"), ("currency", "24/5"), ("TWSE", "XTAI")),
    ],
)
def test_an_unknown_name_gets_the_code_of_its_market(words: str, code: str) -> None:
    with pytest.raises(InvalidFields) as caught:
        canonical_code(words)
    (violation,) = caught.value.violations
    assert violation.field == "calendar"
    assert "such as XNYS" in violation.constraint
    suggestions = violation.constraint.partition("did you mean ")[2]
    assert suggestions.startswith(f"{code} ("), violation.constraint


@pytest.mark.parametrize("words", ["qqqqqq", "", "!!", "X" * 32])
def test_what_resembles_no_market_gets_no_suggestion(words: str) -> None:
    with pytest.raises(InvalidFields, match=r"GET /v1/calendars lists them all\."):
        canonical_code(words)


def test_every_calendar_of_the_package_is_described() -> None:
    described = exchanges()
    assert {one.code for one in described} == set(markets())
    by_code = {one.code: one for one in described}
    for one in described:
        assert ZoneInfo(one.time_zone).key == one.time_zone
        assert one.name
        assert one.country
        assert all(canonical_code(alias) == one.code for alias in one.aliases)
    shanghai = by_code["XSHG"]
    assert f"{shanghai.break_start:%H:%M}-{shanghai.break_end:%H:%M}" == "11:30-13:00"
    assert {"SSE", "SZSE", "XSHE"} <= set(shanghai.aliases)
    assert by_code["24/7"].closes_day_after
    assert by_code["CMES"].opens_day_before
    assert not set(NO_HOURS) & {alias for one in described for alias in one.aliases}


def test_hours_are_those_of_the_sessions_that_are_built() -> None:
    import exchange_calendars

    for code in ("XNYS", "XHKG", "CMES", "24/7"):
        (one,) = (each for each in exchanges() if each.code == code)
        calendar = exchange_calendars.get_calendar(code, start="2025-03-03", end="2025-03-07")
        opened = calendar.schedule["open"].iloc[2].tz_convert(calendar.tz)
        assert opened.time() == one.open
        assert (opened.day == 4) == one.opens_day_before


def test_a_word_that_names_a_market_comes_before_one_that_is_spelt_like_another() -> None:
    assert find_markets("SIX", {"SIXX": "XNYS"}) == ["XSWX"]
