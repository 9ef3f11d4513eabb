"""Limits as settings write them."""

from __future__ import annotations

import pytest

from kronos_api.errors import StartupError
from kronos_api.ratelimit.quotas import ALL, Quota, Quotas, parse_routes


@pytest.mark.parametrize(
    ("text", "routes"),
    [
        ("", {}),
        (" , ", {}),
        ("batch=10/minute", {"batch": [(10, 60)]}),
        ("batch = 10 per 2 hours ; 5/second", {"batch": [(10, 7200), (5, 1)]}),
        ("a=1/day,b=2/minute,", {"a": [(1, 86400)], "b": [(2, 60)]}),
    ],
)
def test_quotas_are_parsed(text: str, routes: dict[str, list[tuple[int, int]]]) -> None:
    read = parse_routes(text)
    found = {name: [(one.amount, one.seconds) for one in read[name]] for name in read}
    assert found == routes
    assert all(one.name == name for name, quotas in read.items() for one in quotas)


@pytest.mark.parametrize(
    "text",
    [
        "batch",
        "batch=",
        "=1/minute",
        "batch=ten/minute",
        "batch=0/minute",
        "batch=1/fortnight",
        "batch=1/minute;",
        "batch=1/minute 2/hour",
        "batch=1/minute, batch=2/hour",
    ],
)
def test_bad_quota_is_one_line(text: str) -> None:
    with pytest.raises(StartupError, match=r"^KRONOS_RATE_LIMITS: '[^\n]+$"):
        parse_routes(text)


def test_overall_quota_applies_to_every_route() -> None:
    quotas = Quotas(100, parse_routes("batch=10/minute;200/hour"))
    assert quotas.of("single") == (Quota(ALL, 100, 60),)
    assert [quota.amount for quota in quotas.of("batch")] == [100, 10, 200]
    assert (quotas.most("single"), quotas.most("batch")) == (100, 10)


def test_quota_of_unknown_route() -> None:
    quotas = Quotas(100, parse_routes("stream=1/second"))
    quotas.check(["stream"])
    with pytest.raises(StartupError, match=r"there is no route 'stream'; routes are batch, single"):
        quotas.check(["single", "batch"])


def test_windows_begin_at_multiples() -> None:
    quota = Quota(ALL, 1, 60)
    assert [quota.window(now) for now in (0, 59.9, 60, 119.9)] == [0, 0, 1, 1]
    assert quota.end(1) == 120
