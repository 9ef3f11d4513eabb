"""Identification of callers, with a nameserver that is truthful, lies, fails or is silent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from ipaddress import ip_address, ip_interface, ip_network
from socket import AF_INET, AF_INET6, AF_UNIX
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from dns.resolver import BaseResolver, NoResolverConfiguration

from kronos_api.errors import StartupError
from kronos_api.security.build import build_callers
from kronos_api.security.callers import Caller, Identification
from kronos_api.security.identity import Identity
from kronos_api.security.local_networks import LocalNetworks, own_interfaces
from kronos_api.security.resolver import (
    FRESH_SECONDS,
    REUSE_SECONDS,
    Resolver,
    ResolverUnavailable,
    Shared,
)
from kronos_api.security.whitelist import Whitelist
from tests.security.dns import Nameserver, answering

OWN = (ip_interface("10.9.0.2/24"), ip_interface("fd00:9::2/64"))
TIMEOUT = 0.25
"""Seconds in which a busy machine, too, has given up."""
ONES = "ffff" + ":ffff" * 7


class Clock:
    """A clock that tests set forward."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def dns() -> Iterator[Nameserver]:
    """Knows this host as `api` on the network `inner`."""
    with answering() as server:
        server.container("api", "10.9.0.2")
        server.container("api", "fd00:9::2")
        yield server


def make_identity(
    dns: Nameserver, clock: Clock, entries: str, networks: tuple[str, ...] = ()
) -> Identity:
    resolver = Resolver((dns.address,), timeout=TIMEOUT, now=clock)
    around = LocalNetworks(resolver, networks=networks, interfaces=lambda: OWN, now=clock)
    return Identity(Whitelist.parse(entries), around)


async def identify(identity: Identity, address: str, **options: Any) -> Caller | None:
    return await identity.identify(ip_address(address), **options)


@pytest.mark.parametrize(
    ("entries", "address", "caller"),
    [
        ("localhost", "127.0.0.1", Caller("localhost", "127.0.0.1")),
        ("10.9.0.0/24", "10.9.0.10", Caller("10.9.0.0/24", "10.9.0.10")),
        ("shop-web-1", "10.9.0.10", Caller("shop-web-1", "shop-web-1", "shop-web-1")),
        ("web", "10.9.0.10", Caller("web", "shop-web-1", "shop-web-1")),
        ("web,shop-web-1", "10.9.0.10", Caller("shop-web-1", "shop-web-1", "shop-web-1")),
        ("www", "10.9.0.10", Caller("www", "shop-web-1", "shop-web-1")),
        ("web", "10.9.0.11", Caller("web", "shop-web-2", "shop-web-2")),
        ("web", "10.9.0.12", Caller("web", "shop-web-3", "shop-web-3")),
        ("www", "10.9.0.11", None),
        ("web", "fd00:9::10", Caller("web", "shop-web-6", "shop-web-6")),
        ("shop-web-6", "fd00:9::10", Caller("shop-web-6", "shop-web-6", "shop-web-6")),
        ("web", "10.9.0.99", None),
        ("shop", "10.9.0.10", None),
        ("inner", "10.9.0.10", None),
        ("web", "127.0.0.1", None),
    ],
)
async def test_caller_at_an_address(
    dns: Nameserver, clock: Clock, entries: str, address: str, caller: Caller | None
) -> None:
    dns.container("shop-web-1", "10.9.0.10", "web", "www")
    dns.container("shop-web-2", "10.9.0.11", "web")
    dns.container("shop-web-3", "10.9.0.12", "web")
    dns.container("shop-web-6", "fd00:9::10", "web")
    assert await identify(make_identity(dns, clock, entries), address) == caller


async def test_caller_without_a_name_counts_by_address(dns: Nameserver, clock: Clock) -> None:
    dns.forward["web"] = ["10.9.0.10"]
    assert await identify(make_identity(dns, clock, "web"), "10.9.0.10") == Caller(
        "web", "10.9.0.10"
    )


async def test_names_outside_our_subnets_do_not_count(dns: Nameserver, clock: Clock) -> None:
    dns.container("web", "10.8.0.10")
    identity = make_identity(dns, clock, "web")
    assert await identify(identity, "10.8.0.10") is None
    assert not dns.asked
    assert await identify(identity, "10.9.0.10") is None  # the name leads out, the peer is here


async def test_pods_are_named_in_the_blocks_of_the_setting(dns: Nameserver, clock: Clock) -> None:
    dns.reverse["10.9.0.2"] = "10-9-0-2.kronos-api.kronos.svc.cluster.local"
    dns.container("shop-0.shop.default", "10.244.1.7", network="svc.cluster.local")
    dns.forward["web.default.svc.cluster.local"] = ["10.244.2.9", "10.245.0.9"]
    resolver = Resolver((dns.address,), timeout=TIMEOUT, now=clock)
    around = LocalNetworks(
        resolver, blocks=(ip_network("10.244.0.0/16"),), interfaces=lambda: OWN[:1], now=clock
    )
    entries = "shop-0.shop.default,web.default.svc.cluster.local"
    identity = Identity(Whitelist.parse(entries), around)
    pod = await identify(identity, "10.244.1.7")
    assert pod is not None
    assert pod.label == pod.key == "shop-0.shop.default"
    web = await identify(identity, "10.244.2.9")
    assert web is not None
    assert web.label == "web.default.svc.cluster.local"
    assert await identify(identity, "10.244.3.3") is None
    asked = dns.asked.total()
    assert await identify(identity, "10.245.0.9") is None
    assert await identify(identity, "fd00:10:244::9") is None
    assert dns.asked.total() == asked, "DNS is not asked about addresses in no block"
    found = identity.identification(pod, ip_address("10.244.1.7"), clock.seconds)
    assert await identity.holds(found, ip_address("10.244.1.7"), clock.seconds)
    dns.remove("10.244.1.7")
    clock.seconds += REUSE_SECONDS
    assert not await identity.holds(found, ip_address("10.244.1.7"), clock.seconds)


@pytest.mark.parametrize(
    ("full_name", "networks"),
    [
        ("web.outer", ()),
        ("web.evil.inner", ()),
        ("web", ()),
        ("web.inner.evil", ()),
        ("web.inner", ("outer",)),
        ("xweb.inner", ()),
    ],
)
async def test_names_count_on_own_networks_only(
    dns: Nameserver, clock: Clock, full_name: str, networks: tuple[str, ...]
) -> None:
    dns.reverse["10.9.0.10"] = full_name
    assert await identify(make_identity(dns, clock, "web", networks), "10.9.0.10") is None


async def test_networks_can_be_configured(dns: Nameserver, clock: Clock) -> None:
    del dns.reverse["10.9.0.2"]
    dns.container("web", "10.9.0.10", network="a.b")
    dns.forward.clear()
    assert await identify(make_identity(dns, clock, "web"), "10.9.0.10") is None
    assert await identify(make_identity(dns, clock, "web", ("a.b",)), "10.9.0.10") is not None


@pytest.mark.parametrize("mode", ["servfail", "silent"])
async def test_unavailable_nameserver_is_no_refusal(
    dns: Nameserver, clock: Clock, mode: Any
) -> None:
    dns.container("web", "10.9.0.10")
    dns.mode = mode
    identity = make_identity(dns, clock, "web,localhost")
    with pytest.raises(ResolverUnavailable):
        await identify(identity, "10.9.0.10")
    assert max(dns.asked.values()) <= 2  # a lost datagram is sent once more
    assert identity.dns_failed
    assert await identify(identity, "127.0.0.1") is not None  # needs no names
    assert await identify(identity, "10.8.0.1") is None
    dns.mode = "truthful"
    clock.seconds += 2 * FRESH_SECONDS
    assert await identify(identity, "10.9.0.10") is not None
    assert not identity.dns_failed


async def test_one_answer_suffices_while_another_fails(dns: Nameserver, clock: Clock) -> None:
    dns.container("shop-web-1", "10.9.0.10", "web")
    dns.modes["gone"] = "silent"
    identity = make_identity(dns, clock, "gone,web,shop-web-2")
    assert await identify(identity, "10.9.0.10") == Caller("web", "shop-web-1", "shop-web-1")
    clock.seconds += REUSE_SECONDS
    dns.modes[ip_address("10.9.0.10").reverse_pointer] = "servfail"
    assert await identify(identity, "10.9.0.10") == Caller("web", "10.9.0.10")
    with pytest.raises(ResolverUnavailable):
        await identify(identity, "10.9.0.99")


async def test_servfail_for_unknown_names_is_a_refusal(dns: Nameserver, clock: Clock) -> None:
    """So Docker's answers on an internal network, about names that no container has."""
    dns.container("web", "10.9.0.10")
    dns.container("unlisted", "10.9.0.11")
    dns.modes = dict.fromkeys(("gone", ip_address("10.9.0.99").reverse_pointer), "servfail")
    identity = make_identity(dns, clock, "gone,web")
    assert await identify(identity, "10.9.0.10") == Caller("web", "web", "web")
    assert await identify(identity, "10.9.0.11") is None
    assert await identify(identity, "10.9.0.99") is None
    assert not identity.dns_failed
    # A nameserver that does not know this host either has failed.
    dns.modes[OWN[0].ip.reverse_pointer] = "servfail"
    clock.seconds += 2 * FRESH_SECONDS
    with pytest.raises(ResolverUnavailable):
        await identify(identity, "10.9.0.11")
    assert identity.dns_failed


async def test_unlisted_callers_cause_no_more_questions(dns: Nameserver, clock: Clock) -> None:
    reverse = ip_address("10.9.0.99").reverse_pointer
    dns.modes = dict.fromkeys(("gone", reverse), "servfail")
    identity = make_identity(dns, clock, "gone")
    for _ in range(20):
        assert await identity.identify(ip_address("10.9.0.99"), refresh=True) is None
    before = dns.asked.copy()
    assert max(before.values()) <= 2  # a datagram that is late is sent once more
    clock.seconds += 2 * FRESH_SECONDS
    assert await identity.identify(ip_address("10.9.0.99"), refresh=True) is None
    assert all(dns.asked[name] > number for name, number in before.items())


async def test_stalled_event_loop_is_no_dns_failure(dns: Nameserver) -> None:
    """Each turn of the loop outlasts the deadline: answers wait in the socket meanwhile."""
    dns.container("web", "10.9.0.10")
    loop = asyncio.get_running_loop()
    resolver = Resolver((dns.address,), timeout=0.01)
    stalling = True

    def stall() -> None:
        time.sleep(0.02)
        if stalling:
            loop.call_soon(stall)

    stall()
    try:
        for _ in range(3):
            assert await resolver._names(ip_address("10.9.0.10")) == {"web.inner"}
    finally:
        stalling = False


async def test_answer_is_reused_for_two_seconds_at_most(dns: Nameserver, clock: Clock) -> None:
    dns.container("shop-web-1", "10.9.0.10", "web")
    identity = make_identity(dns, clock, "web")
    assert await identify(identity, "10.9.0.10") is not None
    dns.remove("10.9.0.10")
    dns.container("unlisted", "10.9.0.10")
    clock.seconds += REUSE_SECONDS - 0.01
    # Another peer asks for the same service: that gives the answer no second life.
    assert await identify(identity, "10.9.0.11") is None
    clock.seconds += 0.01
    assert await identify(identity, "10.9.0.10") is None


async def test_concurrent_callers_cause_one_question(dns: Nameserver, clock: Clock) -> None:
    dns.container("shop-web-1", "10.9.0.10", "web")
    identity = make_identity(dns, clock, "web")
    callers = await asyncio.gather(*(identify(identity, "10.9.0.10") for _ in range(50)))
    assert set(callers) == {Caller("web", "shop-web-1", "shop-web-1")}
    assert set(dns.asked.values()) == {1}


async def test_silent_nameserver_does_not_block_the_event_loop(
    dns: Nameserver, clock: Clock
) -> None:
    dns.mode = "silent"
    identity = make_identity(dns, clock, "web")
    asking = [asyncio.create_task(identify(identity, f"10.9.0.{last}")) for last in range(10, 60)]
    turns = 0
    while not all(task.done() for task in asking):
        await asyncio.sleep(0.001)
        turns += 1
    for task in asking:
        with pytest.raises(ResolverUnavailable):
            await task
    assert turns > 10


async def test_cancelled_caller_leaves_the_answer_to_the_others() -> None:
    release = asyncio.Event()

    async def ask(key: str) -> str:
        await release.wait()
        if key == "bad":
            raise ResolverUnavailable("no")
        return key

    shared = Shared(ask)
    impatient, patient, failed = (
        asyncio.create_task(shared(key)) for key in ("good", "good", "bad")
    )
    await asyncio.sleep(0)
    impatient.cancel()
    failed.cancel()
    release.set()
    assert await patient == "good"
    with pytest.raises(ResolverUnavailable):
        await shared("bad")
    with pytest.raises(ResolverUnavailable):  # a failure is not kept
        await shared("bad")


async def test_refused_port_is_a_failure(clock: Clock) -> None:
    with answering() as server:
        gone = server.address
    resolver = Resolver((gone,), timeout=TIMEOUT, now=clock)
    with pytest.raises(ResolverUnavailable):
        await resolver.names(ip_address("10.9.0.10"))


def test_dns_is_set_up_where_an_entry_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def unconfigured(*_: object) -> None:
        raise NoResolverConfiguration

    monkeypatch.setattr(BaseResolver, "read_resolv_conf", unconfigured)
    options: Any = {"keys": None, "servers": (), "timeout": 0.1, "networks": ()}
    plain, named = Whitelist.parse("localhost,10.0.0.0/8"), Whitelist.parse("web")
    callers = build_callers(plain, plain, **options)
    allowed, proxies = callers.allowed, callers.proxies
    assert allowed is not None
    assert allowed.local_networks is proxies.local_networks is None
    assert build_callers(None, plain, **options).allowed is None
    for pair in ((named, plain), (plain, named), (None, named)):
        with pytest.raises(StartupError, match="KRONOS_DNS_SERVERS"):
            build_callers(*pair, **options)


def test_own_interfaces(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not any(one.is_loopback for one in own_interfaces())

    def address(family: int, text: str, netmask: str | None) -> SimpleNamespace:
        return SimpleNamespace(family=family, address=text, netmask=netmask)

    found = {
        "lo": [
            address(AF_INET, "127.0.0.1", "255.0.0.0"),
            address(AF_INET6, "::1", "ffff" + ":ffff" * 7),
        ],
        "eth0": [
            address(AF_INET, "10.9.0.2", "255.255.255.0"),
            address(AF_INET6, "fd00:9::2", "ffff:ffff:ffff:ffff::"),
            address(AF_INET6, "fe80::1%eth0", "ffff:ffff:ffff:ffff::"),
            address(AF_UNIX, "02:42:0a:09:00:02", None),
        ],
    }
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: found)
    assert own_interfaces() == (*OWN, ip_interface("fe80::1/64"))


def test_interfaces_are_read_again(clock: Clock) -> None:
    held = [OWN[:1], OWN]
    resolver = Resolver((("127.0.0.1", 53),), timeout=TIMEOUT)
    around = LocalNetworks(resolver, interfaces=lambda: held.pop(0), now=clock)
    assert around.interface_for(ip_address("fd00:9::9")) is None
    assert around.interface_for(ip_address("10.9.0.9")) == OWN[0]
    clock.seconds += 2
    assert around.interface_for(ip_address("fd00:9::9")) == OWN[1]


async def test_no_caller_is_refused_by_an_old_answer(dns: Nameserver, clock: Clock) -> None:
    dns.container("shop-web-1", "10.9.0.10", "web")
    identity = make_identity(dns, clock, "web")
    assert await identify(identity, "10.9.0.10") is not None
    dns.container("shop-web-2", "10.9.0.11", "web")
    clock.seconds += 2 * FRESH_SECONDS
    assert await identify(identity, "10.9.0.11") is None
    assert await identify(identity, "10.9.0.11", refresh=True) == Caller(
        "web", "shop-web-2", "shop-web-2"
    )
    # Any number of unlisted callers causes no further question.
    for number in range(20, 40):
        assert await identify(identity, f"10.9.0.{number}", refresh=True) is None
    assert dns.asked["web"] == 2


WEB = Caller("web", "shop-web-1", "shop-web-1")


async def holds(identity: Identity, found: Identification) -> bool:
    return await identity.holds(found, ip_address("10.9.0.10"), opened=1000.0)


@pytest.mark.parametrize("entries", ["web", "shop-web-1"])
async def test_named_caller_is_looked_up_for_each_request(
    dns: Nameserver, clock: Clock, entries: str
) -> None:
    dns.container("shop-web-1", "10.9.0.10", "web")
    identity = make_identity(dns, clock, entries)
    caller = await identify(identity, "10.9.0.10")
    assert caller is not None
    found = Identification(caller)
    assert await holds(identity, found)
    asked = dns.asked.copy()
    clock.seconds += REUSE_SECONDS - 0.01
    assert await holds(identity, found)
    assert dns.asked == asked  # of an answer from before
    dns.remove("10.9.0.10")
    dns.container("unlisted", "10.9.0.10")
    clock.seconds += 0.01
    assert not await holds(identity, found)


async def test_another_container_at_the_address_is_another_caller(
    dns: Nameserver, clock: Clock
) -> None:
    dns.container("shop-web-1", "10.9.0.10", "web")
    identity = make_identity(dns, clock, "web")
    assert await holds(identity, Identification(WEB))
    dns.remove("10.9.0.10")
    dns.container("shop-web-2", "10.9.0.10", "web")
    clock.seconds += REUSE_SECONDS
    assert not await holds(identity, Identification(WEB))


async def test_answer_older_than_the_connection_does_not_confirm(
    dns: Nameserver, clock: Clock
) -> None:
    """An unlisted container connects while the last answer names the address' former owner."""
    dns.container("shop-web-1", "10.9.0.10", "web")
    identity = make_identity(dns, clock, "web")
    clock.seconds -= 1
    assert await identify(identity, "10.9.0.10") == WEB
    assert identity.identification(WEB, ip_address("10.9.0.10"), opened=999.0).confirmed
    assert not identity.identification(WEB, ip_address("10.9.0.10"), opened=1000.0).confirmed
    dns.remove("10.9.0.10")
    dns.container("unlisted", "10.9.0.10")
    clock.seconds += 1
    assert not await holds(identity, Identification(WEB))


@pytest.mark.parametrize("mode", ["servfail", "silent"])
async def test_outage_ends_unconfirmed_connections(
    dns: Nameserver, clock: Clock, mode: Any
) -> None:
    dns.container("shop-web-1", "10.9.0.10", "web")
    identity = make_identity(dns, clock, "web")
    confirmed, unconfirmed = Identification(WEB), Identification(WEB)
    assert await holds(identity, confirmed)
    dns.mode = mode
    clock.seconds += REUSE_SECONDS
    with pytest.raises(ResolverUnavailable):
        await holds(identity, unconfirmed)
    assert await holds(identity, confirmed)
    assert identity.dns_failed
    asked = dns.asked["web"]
    clock.seconds += REUSE_SECONDS - 0.01
    assert await holds(identity, confirmed)
    assert dns.asked["web"] == asked  # and does not wait for DNS at each request
    dns.remove("10.9.0.10")
    dns.mode = "truthful"
    clock.seconds += REUSE_SECONDS
    assert not await holds(identity, confirmed)
    assert not identity.dns_failed


async def test_servfail_for_a_removed_container_is_a_change(dns: Nameserver, clock: Clock) -> None:
    """On an internal network Docker says SERVFAIL of names that no container has."""
    dns.container("shop-web-1", "10.9.0.10", "web")
    identity = make_identity(dns, clock, "web")
    found = Identification(WEB)
    assert await holds(identity, found)
    dns.modes["web"] = "servfail"
    clock.seconds += REUSE_SECONDS
    assert not await holds(identity, found)


async def test_answer_that_named_a_caller_suffices(dns: Nameserver, clock: Clock) -> None:
    dns.container("shop-web-1", "10.9.0.10", "web")
    dns.modes["gone"] = "silent"
    dns.modes[ip_address("10.9.0.10").reverse_pointer] = "servfail"
    identity = make_identity(dns, clock, "gone,web")
    assert await holds(identity, Identification(WEB))
    assert "gone" not in dns.asked


async def test_listed_address_needs_no_lookup(dns: Nameserver, clock: Clock) -> None:
    identity = make_identity(dns, clock, "web,10.9.0.10")
    assert await holds(identity, Identification(Caller("10.9.0.10", "10.9.0.10")))
    assert not dns.asked
