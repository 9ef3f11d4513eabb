"""A nameserver whose records and failures a test sets."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Any, Literal

from dnslib import AAAA, PTR, QTYPE, RCODE, RR, A, DNSRecord

Mode = Literal["truthful", "servfail", "silent"]


class Nameserver:
    """Answers on `listener`, a bound datagram socket, as Docker's embedded server does."""

    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        self.forward: dict[str, list[str]] = {}
        """Addresses of a service, an alias or a container."""
        self.reverse: dict[str, str] = {}
        """`<container>.<network>` of an address."""
        self.mode: Mode = "truthful"
        self.modes: dict[str, Mode] = {}
        """Of single questions, by their names."""
        self.asked: Counter[str] = Counter()
        self.stopped = threading.Event()

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.listener.getsockname()[:2]
        return str(host), int(port)

    def container(self, name: str, address: str, *services: str, network: str = "inner") -> None:
        """Make `address` that of a container, with its name, its services and its aliases."""
        self.reverse[address] = f"{name}.{network}"
        for known in (name, *services):
            self.forward.setdefault(known, []).append(address)

    def remove(self, address: str) -> None:
        """The container at `address` has stopped."""
        del self.reverse[address]
        for addresses in self.forward.values():
            if address in addresses:
                addresses.remove(address)

    def run(self) -> None:
        """Answer until `stopped` is set."""
        self.listener.settimeout(0.05)
        while not self.stopped.is_set():
            try:
                packet, sender = self.listener.recvfrom(4096)
            except TimeoutError:
                continue
            reply = self._reply(DNSRecord.parse(packet))
            if reply is not None:
                self.listener.sendto(reply.pack(), sender)

    def _reply(self, question: Any) -> Any:
        name = str(question.q.qname).rstrip(".")
        self.asked[name] += 1
        mode = self.modes.get(name, self.mode)
        if mode == "silent":
            return None
        reply = question.reply()
        if mode == "servfail":
            reply.header.rcode = RCODE.SERVFAIL
            return reply
        kind = QTYPE[question.q.qtype]
        if kind == "PTR":
            known = name in {ip_address(one).reverse_pointer for one in self.reverse}
            for address, full_name in self.reverse.items():
                if ip_address(address).reverse_pointer == name:
                    reply.add_answer(RR(name, QTYPE.PTR, rdata=PTR(full_name), ttl=600))
        else:
            known = bool(self.forward.get(name))
            for address in self.forward.get(name, []):
                version = ip_address(address).version
                if kind == "A" and version == 4:
                    reply.add_answer(RR(name, QTYPE.A, rdata=A(address), ttl=600))
                if kind == "AAAA" and version == 6:
                    reply.add_answer(RR(name, QTYPE.AAAA, rdata=AAAA(address), ttl=600))
        if not known:
            reply.header.rcode = RCODE.NXDOMAIN
        return reply


@contextmanager
def answering(listener: socket.socket | None = None) -> Iterator[Nameserver]:
    """A nameserver that runs, on a port of its own of the loopback unless `listener` is given."""
    if listener is None:
        listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        listener.bind(("127.0.0.1", 0))
    server = Nameserver(listener)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server
    finally:
        server.stopped.set()
        thread.join()
        listener.close()
