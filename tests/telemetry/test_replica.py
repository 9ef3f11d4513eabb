"""The name of a replica's container."""

from __future__ import annotations

import pytest

from kronos_api.telemetry.replica import container_name


def no_answer(_: str) -> str:
    raise OSError("no answer")


def test_container_with_a_short_id_is_named_by_dns() -> None:
    asked: list[str] = []

    def reverse(address: str) -> str:
        asked.append(address)
        return "kronos-kronos-api-1.kronos-internal"

    name = container_name("0123456789ab", lambda _: ["172.28.0.3"], reverse)
    assert (name, asked) == ("kronos-kronos-api-1", ["172.28.0.3"])


@pytest.mark.parametrize("reverse", [no_answer, lambda _: "0123456789ab"])
def test_container_without_a_name_in_dns_keeps_its_id(reverse: object) -> None:
    assert container_name("0123456789ab", lambda _: ["172.28.0.3"], reverse) == "0123456789ab"  # type: ignore[arg-type]


def test_host_name_that_is_no_id_needs_no_dns() -> None:
    assert container_name("forecasts-7d9f", no_answer, no_answer) == "forecasts-7d9f"
