"""Hosts with addresses of their own: network namespaces around a bridge, made and removed here."""

from __future__ import annotations

import ctypes
import http.client
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

PREFIX, PREFIX6 = "10.213.77", "fd00:77:"
OUTER = "10.213.78"
NAMESPACES = Path("/run/netns")
_CLONE_NEWNET = 0x40000000


def missing() -> str | None:
    """Why there can be no such hosts here; None if there can."""
    if os.name != "posix" or not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "needs root, for network namespaces"
    if shutil.which("ip") is None:
        return "needs the ip command (Debian: iproute2)"
    name = f"kronos-probe-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if made.returncode:
        return f"network namespaces cannot be made here: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", name], check=True)
    return None


def run(command: str) -> None:
    """Run `command`, which must succeed."""
    done = subprocess.run(command.split(), capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stderr}"


class Host:
    """A namespace with an address on the bridge."""

    def __init__(self, name: str) -> None:
        self.name = name

    def addresses(self, verb: str, last: int) -> None:
        """Take (`add`) or leave (`del`) the addresses that end in `last`."""
        run(f"ip -n {self.name} addr {verb} {PREFIX}.{last}/24 dev eth0")
        run(f"ip -n {self.name} addr {verb} {PREFIX6}:{last}/64 dev eth0 nodad")

    def command(self, *parts: str) -> list[str]:
        """A command that runs on this host."""
        return ["ip", "netns", "exec", self.name, *parts]

    def socket(
        self, family: socket.AddressFamily, kind: socket.SocketKind = socket.SOCK_STREAM
    ) -> socket.socket:
        """A socket of this host; it stays of this host wherever it is used."""
        libc = ctypes.CDLL(None, use_errno=True)
        own_path, other_path = Path("/proc/thread-self/ns/net"), NAMESPACES / self.name
        with own_path.open() as own, other_path.open() as other:
            assert libc.setns(other.fileno(), _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
            try:
                return socket.socket(family, kind)
            finally:
                assert libc.setns(own.fileno(), _CLONE_NEWNET) == 0

    def connect(self, address: str, port: int, source: str | None = None) -> Connection:
        """An HTTP connection from this host."""
        made = self.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        made.settimeout(10)
        try:
            if source is not None:
                made.bind((source, 0))
            made.connect((address, port))
        except OSError:
            made.close()
            raise
        return Connection(made)

    def status(self, address: str, port: int, headers: Mapping[str, str] | None = None) -> int:
        """The status that one request over a connection of its own gets."""
        connection = self.connect(address, port)
        try:
            return connection.status(headers=headers)
        finally:
            connection.close()


class Connection(http.client.HTTPConnection):
    """One connection for any number of requests."""

    def __init__(self, made: socket.socket) -> None:
        super().__init__("service")
        self.sock = made

    def connect(self) -> None:
        raise ConnectionError("the connection was closed")

    def status(self, path: str = "/v1/models", headers: Mapping[str, str] | None = None) -> int:
        """The status that `path` answers with."""
        self.request("GET", path, headers=dict(headers or {}))
        response = self.getresponse()
        response.read()
        return response.status


@contextmanager
def hosts(names: Mapping[str, int]) -> Iterator[dict[str, Host]]:
    """Hosts by name, each at the addresses that end in its number, and two more.

    `hub` is the bridge's gateway, at .1; `outsider`, at .10 of another subnet, is behind it.
    """
    made: dict[str, Host] = {}

    def add(name: str) -> Host:
        made[name] = Host(f"kronos-{os.getpid()}-{name}")
        run(f"ip netns add {made[name].name}")
        run(f"ip -n {made[name].name} link set lo up")
        return made[name]

    try:
        hub = add("hub")
        run(f"ip netns exec {hub.name} sysctl -qw net.ipv4.ip_forward=1")
        for bridge in ("inner", "outer"):
            run(f"ip -n {hub.name} link add {bridge} type bridge")
            run(f"ip -n {hub.name} link set {bridge} up")
        run(f"ip -n {hub.name} addr add {PREFIX}.1/24 dev inner")
        run(f"ip -n {hub.name} addr add {OUTER}.1/24 dev outer")
        for number, name in enumerate((*names, "outsider")):
            host = add(name)
            run(f"ip -n {hub.name} link add p{number} type veth peer name eth0 netns {host.name}")
            bridge = "inner" if name in names else "outer"
            run(f"ip -n {hub.name} link set p{number} master {bridge} up")
            run(f"ip -n {host.name} link set eth0 up")
            if name in names:
                host.addresses("add", names[name])
            else:
                run(f"ip -n {host.name} addr add {OUTER}.10/24 dev eth0")
            via = PREFIX if name in names else OUTER
            run(f"ip -n {host.name} route add default via {via}.1")
        yield made
    finally:
        for host in made.values():
            subprocess.run(["ip", "netns", "del", host.name], check=False)
