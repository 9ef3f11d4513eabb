"""Entries of a whitelist, and which addresses they name by themselves."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from kronos_api.security.whitelist import (
    Whitelist,
    listed,
    parse_address,
    parse_private_blocks,
    parse_servers,
)


def test_entries_by_kind() -> None:
    whitelist = Whitelist.parse(" web, localhost ,10.1.2.3,10.2.0.0/16,fd00::/64,web,app-1.x_y,")
    assert whitelist.localhost
    assert whitelist.names == ("web", "app-1.x_y")
    assert whitelist.networks == (
        ("10.1.2.3", ip_network("10.1.2.3/32")),
        ("10.2.0.0/16", ip_network("10.2.0.0/16")),
        ("fd00::/64", ip_network("fd00::/64")),
    )
    assert len(whitelist) == 6
    assert len(Whitelist.parse("")) == 0


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("10.0.0.300", "an address, a CIDR block or the name"),
        ("1234", "must be an address"),
        ("10.0.0.1/8", "a CIDR block without bits beyond its prefix"),
        ("10.0.0.0/33", "must be a CIDR block"),
        ("web/24", "must be a CIDR block"),
        ("fd00::g", "must be an address"),
        ("-web", "must be an address"),
        ("we b", "must be an address"),
        ("web..x", "must be an address"),
        ("web.", "must be an address"),
        ("a" * 64, "must be an address"),
        ("*", "must be an address"),
        ("http://web", "must be a CIDR block"),
    ],
)
def test_bad_entry_is_named_by_its_number_and_not_repeated(entry: str, expected: str) -> None:
    with pytest.raises(ValueError, match=f"^entry 2 .*{expected}") as caught:
        Whitelist.parse(f"web,{entry}")
    assert entry == "*" or entry not in str(caught.value)


@pytest.mark.parametrize(
    ("entries", "address", "entry"),
    [
        ("localhost", "127.0.0.1", "localhost"),
        ("localhost", "127.0.0.6", None),
        ("localhost,127.0.0.6", "127.0.0.6", "127.0.0.6"),
        ("localhost", "::ffff:127.0.0.6", None),
        ("localhost", "::1", "localhost"),
        ("localhost", "::ffff:127.0.0.1", "localhost"),
        ("localhost", "10.0.0.1", None),
        ("", "127.0.0.1", None),
        ("10.0.0.1", "10.0.0.1", "10.0.0.1"),
        ("10.0.0.1", "::ffff:10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1", "::ffff:10.0.0.1"),
        ("::ffff:10.0.0.0/120", "10.0.0.7", "::ffff:10.0.0.0/120"),
        ("10.0.0.1", "10.0.0.2", None),
        ("10.0.0.0/24,10.0.0.1", "10.0.0.1", "10.0.0.0/24"),
        ("10.0.0.0/24", "10.0.1.0", None),
        ("fd00::/64", "fd00::1", "fd00::/64"),
        ("fe80::1", "fe80::1%eth0", "fe80::1"),
        ("0.0.0.0/0", "fd00::1", None),
        ("::/0", "10.0.0.1", None),
        ("web", "10.0.0.1", None),
    ],
)
def test_addresses(entries: str, address: str, entry: str | None) -> None:
    parsed = parse_address(address)
    assert parsed is not None
    assert Whitelist.parse(entries).by_address(parsed) == entry


def test_loopback_of_another_host_is_not_localhost() -> None:
    whitelist = Whitelist.parse("localhost,127.0.0.4/30")
    for address in ("127.0.0.1", "::1"):
        assert whitelist.by_address(ip_address(address), local=False) is None
        assert whitelist.by_address(ip_address(address)) == "localhost"


@pytest.mark.parametrize("text", [None, "", "web", "10.0.0.1:80", "10.0.0", "010.0.0.1", "[::1]"])
def test_text_that_is_not_an_address(text: str | None) -> None:
    assert parse_address(text) is None


def test_lists() -> None:
    assert listed(" a,b ,,a") == ("a", "b")
    assert parse_servers("10.0.0.1, 10.0.0.2:5353,[fd00::1]:54,fd00::2,[fd00::3]") == (
        ("10.0.0.1", 53),
        ("10.0.0.2", 5353),
        ("fd00::1", 54),
        ("fd00::2", 53),
        ("fd00::3", 53),
    )


def test_blocks_that_dns_can_name_are_private() -> None:
    blocks = parse_private_blocks("10.244.0.0/16, 100.64.0.0/10,fd00::/64")
    assert blocks == tuple(map(ip_network, ("10.244.0.0/16", "100.64.0.0/10", "fd00::/64")))
    for bad in (
        "0.0.0.0/0",
        "10.0.0.0/7",
        "8.8.8.0/24",
        "10.0.0.1/8",
        "::/0",
        "2001:db8::/32",
        "web",
    ):
        with pytest.raises(ValueError, match="entry 2 must be a CIDR block of private addresses"):
            parse_private_blocks(f"10.0.0.0/8,{bad}")


@pytest.mark.parametrize("text", ["dns", "10.0.0.1:0", "10.0.0.1:70000", "10.0.0.1:", "[fd00::1"])
def test_bad_nameserver(text: str) -> None:
    with pytest.raises(ValueError, match="entry 1 must be address"):
        parse_servers(text)
